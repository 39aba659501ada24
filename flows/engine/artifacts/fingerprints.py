"""What each node of a manifest is built from, as fingerprints: its code, macros, settings, variables."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import orjson

from infrastructure.passed_on import look_ups_in

# What `dbt build` builds or runs; sources, exposures, metrics and analyses are none of it.
BUILT_TYPES = ("model", "seed", "snapshot", "function")
TEST_TYPES = ("test", "unit_test")
# What the setting is called that says what the hooks are.
HOOKS = "the on-run hooks"


@dataclass(frozen=True, slots=True)
class Parts:
    """The fingerprints of what one node is made from.

    Attributes:
        code: its file, what dbt knows of it, and the code of the ephemeral models in it.
        macros: the text of all macros that it reaches.
        config: its settings as they are in force, hooks and columns included.
        relation: where it is in the warehouse.
        reads: where what it reads is in the warehouse.
        vars: value of each dbt variable that it looks up.
        env: value of each environment variable that it looks up; a fingerprint gives no value away.
    """

    code: str
    macros: str
    config: str
    relation: str
    reads: str
    vars: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Input:
    """One node that dbt can build or run, and what it is made from.

    Attributes:
        parents: nodes and sources right before it, seen through ephemeral models.
        place: database, schema and name of its relation; empty for a node that has none.
        unseen: why it can come out otherwise with the same code and data; empty when it can't.
    """

    unique_id: str
    name: str
    resource_type: str
    materialized: str
    fqn: str
    parents: tuple[str, ...]
    place: tuple[str, ...]
    parts: Parts
    unseen: str = ""


@dataclass(frozen=True)
class Inputs:
    """All nodes of one parse, parents before children.

    Attributes:
        sources: name of every source by its unique id.
        settings: fingerprints of what concerns every node, by what a person calls it.
    """

    nodes: Mapping[str, Input]
    sources: Mapping[str, str]
    settings: Mapping[str, str]

    @property
    def has_hooks(self) -> bool:
        """Return whether the project, or a package of it, has statements before or behind its runs."""
        return self.settings.get(HOOKS) not in (None, digest_of({}))

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Inputs:
        """Return what orjson wrote of this; raises LookupError or TypeError when it is something else."""
        nodes: dict[str, Input] = {}
        for unique_id, entry in document["nodes"].items():
            known: dict[str, Any] = dict(entry)
            known["parents"], known["place"] = tuple(entry["parents"]), tuple(entry["place"])
            known["parts"] = Parts(**entry["parts"])
            nodes[unique_id] = Input(**known)
        return cls(nodes, document["sources"], document["settings"])


@dataclass(frozen=True)
class Values:
    """The values that a parse depends on beside its files.

    Attributes:
        cli: variables given on the command line.
        by_package: `vars:` of each package's dbt_project.yml.
        environment: of the dbt child.
        files: fingerprint by absolute path, for seeds that dbt itself knows by their path alone.
        project: name of the root project.
    """

    project: str
    cli: Mapping[str, Any]
    by_package: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, str]
    files: Mapping[str, str]

    def variable(self, name: str, package: str) -> object:
        """Return everything that can decide the value of a variable in a package."""
        if name in self.cli:
            return self._with_look_ups([self.cli[name]])
        found: list[object] = []
        for owner in dict.fromkeys((self.project, package)):
            values = self.by_package.get(owner) or {}
            own = values.get(package)
            found += [values.get(name), cast(dict[str, Any], own).get(name) if isinstance(own, dict) else None]
        return self._with_look_ups(found)

    def all_variables(self) -> object:
        """Return every variable there is, for a lookup whose name is worked out while it runs."""
        return self._with_look_ups([dict(self.cli), {name: dict(values) for name, values in self.by_package.items()}])

    def _with_look_ups(self, values: list[object]) -> object:
        """Return values with what they look up themselves, as in `as_of: "{{ env_var('AS_OF') }}"`."""
        text = str(values)
        if "{{" not in text and "{%" not in text:
            return values
        asked = look_ups_in(text.replace("\\'", "'").encode())
        known = {name: value for name, value in self.environment.items() if asked.unknown_in or asked.ask_for(name)}
        return [*values, known, dict(self.cli)]


def digest_of(*parts: object) -> str:
    """Return a short fingerprint of values that JSON can hold."""
    whole = orjson.dumps(parts, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS, default=str)
    return hashlib.sha256(whole).hexdigest()[:16]
