"""Read from a manifest what every node is made from, and what of it can't be known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, cast

import orjson

from flows.engine.artifacts.fingerprints import BUILT_TYPES, HOOKS, TEST_TYPES, Input, Inputs, Parts, Values, digest_of
from flows.engine.artifacts.manifest import reach
from flows.engine.artifacts.volatile_sql import unseen_in_python, unseen_in_sql, unseen_words
from flows.engine.context.events import name_of

# How a project says, in a node's config.meta, that it knows better: "always" or "when_changed".
REBUILD_KEY = "rebuild"
# What `Inputs.settings` calls the macros that no node names.
CALLED_BY_DBT = "macros that dbt itself calls"

_LOOKUP = re.compile(r"\b(env_var|var|has_var)\s*\(\s*(?:(['\"])([^'\"]+)\2)?")
_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_CALL = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
# Which relation a node gets is compared as such: a new macro that gives the same names changes nothing.
_NAMING = frozenset({"generate_schema_name", "generate_database_name", "generate_alias_name"})
# Settings that leave the table as it is, or whose effect stands in the name of the relation.
_NOT_CONFIG = frozenset({"docs", "tags", "group", "access", "alias", "schema", "database"})
_UNIT_TEST_FIELDS = ("model", "given", "expect", "overrides", "config", "version", "checksum")


def inputs_of(manifest: bytes | Mapping[str, Any], values: Values) -> Inputs:
    """Work out from a manifest, all of it, what every node is made from."""
    document = cast(Mapping[str, Any], orjson.loads(manifest)) if isinstance(manifest, bytes) else manifest
    return _Reading(document, values).inputs()


@dataclass(frozen=True, slots=True)
class _Reached:
    """What a piece of Jinja reaches: macros by unique id, lookups by name, and why it can't be known."""

    macros: frozenset[str] = frozenset()
    vars: frozenset[str] = frozenset()
    env: frozenset[str] = frozenset()
    any_var: bool = False
    unseen: str = ""

    def __or__(self, other: _Reached) -> _Reached:
        return _Reached(
            self.macros | other.macros,
            self.vars | other.vars,
            self.env | other.env,
            self.any_var or other.any_var,
            self.unseen or other.unseen,
        )


class _Reading:
    """One walk over a manifest."""

    def __init__(self, manifest: Mapping[str, Any], values: Values) -> None:
        self._values = values
        self._reached: dict[tuple[str, ...], _Reached] = {}
        self._digested: dict[frozenset[str], str] = {}
        self._parts: dict[str, tuple[Parts, str]] = {}
        # Those whose parts are being worked out.
        self._begun: set[str] = set()
        self._macros: Mapping[str, Mapping[str, Any]] = manifest.get("macros") or {}
        self._sources: Mapping[str, Mapping[str, Any]] = manifest.get("sources") or {}
        self._nodes: dict[str, Mapping[str, Any]] = {}
        for section in ("nodes", "functions", "unit_tests"):
            self._nodes.update(manifest.get(section) or {})
        adapter = (manifest.get("metadata") or {}).get("adapter_type") or ""
        self._internal = packages_of_dbt(adapter)
        # While it builds, dbt adds what it called to the macros of a node: these do not count as the node's own.
        self._aside: frozenset[str] = frozenset()
        self._called = self._of_macros(self._called_by_dbt())
        internal = {key for key, macro in self._macros.items() if macro["package_name"] in self._internal}
        self._aside = self._called.macros | internal
        self._by_name: dict[str, list[str]] = {}
        for key, macro in self._macros.items():
            self._by_name.setdefault(macro["name"], []).append(key)
        self._macro_digests = {key: digest_of(macro.get("macro_sql")) for key, macro in self._macros.items()}

    def inputs(self) -> Inputs:
        nodes = {unique_id: self._input(unique_id) for unique_id in self._in_order()}
        sources = {key: f"{entry['source_name']}.{entry['name']}" for key, entry in self._sources.items()}
        return Inputs(nodes, sources, self._settings())

    def _in_order(self) -> list[str]:
        """Return what can be built, parents before children."""
        edges = {key: [up for up in self._parents(key) if up in self._nodes] for key in self._nodes}
        try:
            ordered = list(TopologicalSorter(edges).static_order())
        except CycleError:
            # dbt refuses to build them, in words of its own.
            ordered = list(edges)
        kinds = BUILT_TYPES + TEST_TYPES
        return [key for key in ordered if self._nodes[key]["resource_type"] in kinds and not self._is_ephemeral(key)]

    def _input(self, unique_id: str) -> Input:
        entry = self._nodes[unique_id]
        parts, unseen = self._parts_of(unique_id)
        has_relation = entry["resource_type"] in ("model", "seed", "snapshot") and entry.get("relation_name")
        place = (entry.get("database"), entry.get("schema"), entry.get("alias") or entry["name"])
        return Input(
            unique_id=unique_id,
            name=name_of(unique_id, entry["name"]),
            resource_type=entry["resource_type"],
            materialized=(entry.get("config") or {}).get("materialized") or "",
            fqn=".".join(entry.get("fqn") or ()),
            parents=tuple(self._parents(unique_id)),
            place=tuple(str(part or "") for part in place) if has_relation else (),
            parts=parts,
            unseen=unseen,
        )

    def _settings(self) -> dict[str, str]:
        hooks = {key: entry for key, entry in self._nodes.items() if entry["resource_type"] == "operation"}
        texts = {
            key: [entry.get("raw_code"), *self._digests(entry, self._reach(entry))] for key, entry in hooks.items()
        }
        called = digest_of(*self._digests({}, self._called))
        return {HOOKS: digest_of(texts), CALLED_BY_DBT: called}

    def _called_by_dbt(self) -> list[str]:
        """Return the project's macros that dbt calls without a model naming them.

        Materializations, and macros in place of dbt's own: dbt's state:modified sees neither.
        """
        theirs = {macro["name"] for macro in self._macros.values() if macro["package_name"] in self._internal}
        called: list[str] = []
        for unique_id, macro in self._macros.items():
            names = {str(macro["name"]), str(macro["name"]).partition("__")[2]}
            if macro["package_name"] in self._internal or names & _NAMING:
                continue
            if str(macro["name"]).startswith("materialization_") or names & theirs:
                called.append(unique_id)
        return called

    def _parts_of(self, unique_id: str) -> tuple[Parts, str]:
        found = self._parts.get(unique_id)
        if found is None:
            self._begun.add(unique_id)
            found = self._parts[unique_id] = self._work_out(unique_id)
            self._begun.remove(unique_id)
        return found

    def _work_out(self, unique_id: str) -> tuple[Parts, str]:
        entry = self._nodes[unique_id]
        before = self._before(unique_id)
        # A node that is begun depends on this one: a circle, which dbt refuses to build.
        inside = [parent for parent in before if self._is_ephemeral(parent) and parent not in self._begun]
        inlined = [self._parts_of(parent) for parent in inside]
        reached = self._reach(entry)
        macros, variables, environment = self._digests(entry, reached)
        unseen = _own_unseen(entry) or reached.unseen
        for parts, why in inlined:
            unseen = unseen or why
            variables, environment = {**parts.vars, **variables}, {**parts.env, **environment}
        parts = Parts(
            code=digest_of(self._code(entry), sorted(before), [(p.code, p.config) for p, _ in inlined]),
            macros=digest_of(macros, [p.macros for p, _ in inlined]),
            config=digest_of(config_of(entry)),
            relation=str(entry.get("relation_name") or ""),
            reads=digest_of([self._relation(parent) for parent in before], [p.reads for p, _ in inlined]),
            vars=variables,
            env=environment,
        )
        return parts, _as_declared(entry, unseen)

    def _code(self, entry: Mapping[str, Any]) -> object:
        if entry["resource_type"] == "unit_test":
            return [entry.get(name) for name in _UNIT_TEST_FIELDS]
        checksum = entry.get("checksum") or {}
        if entry["resource_type"] == "seed":
            # dbt looks at no more than the path of a seed above 1 MB.
            path = f"{entry.get('root_path')}/{entry.get('original_file_path')}"
            return self._values.files.get(path) or [checksum, path]
        return [entry.get("raw_code"), entry.get("language"), entry.get("test_metadata"), entry.get("column_name")]

    def _reach(self, entry: Mapping[str, Any]) -> _Reached:
        """Return what a node reaches, through the macros that dbt found and the text that dbt did not look at."""
        hooks = _hooks(entry)
        aside = "\n".join([*hooks, str((entry.get("test_metadata") or {}).get("kwargs") or "")])
        reached = self._of_macros((entry.get("depends_on") or {}).get("macros") or ())
        code = str(entry.get("raw_code") or "")
        # A macro inside `{% if is_incremental() %}` stands in the manifest of a build, and not in that of a parse.
        reached |= self._of_macros(self._named(" ".join(_JINJA.findall(code))))
        reached |= _lookups(f"{code}\n{aside}")
        if named := self._named(aside):
            called = self._of_macros(named)
            # A hook that writes the time into a log does not make the table another one.
            reached |= _Reached(called.macros, called.vars, called.env, called.any_var)
        return reached

    def _named(self, text: str) -> list[str]:
        return [key for match in _CALL.finditer(text) for key in self._by_name.get(match[1], ())]

    def _of_macros(self, roots: Iterable[str]) -> _Reached:
        key = tuple(sorted({root for root in roots if root} - self._aside))
        found = self._reached.get(key)
        if found is None:
            found = self._reached[key] = self._walk(key)
        return found

    def _walk(self, roots: Iterable[str]) -> _Reached:
        found = reach(roots, self._called_in)
        whole = _Reached(frozenset(found))
        for macro in (self._macros[key] for key in found if key in self._macros):
            if macro["package_name"] not in self._internal:
                text = str(macro.get("macro_sql") or "")
                whole |= _lookups(text) | _Reached(unseen=unseen_words(text))
        return whole

    def _called_in(self, unique_id: str) -> list[str]:
        called = (self._macros.get(unique_id, {}).get("depends_on") or {}).get("macros") or ()
        return [key for key in called if key and key not in self._aside]

    def _digests(self, entry: Mapping[str, Any], reached: _Reached) -> tuple[str, dict[str, str], dict[str, str]]:
        """Return the fingerprint of the macros, and those of each variable and environment variable."""
        macros = self._digested.get(reached.macros)
        if macros is None:
            texts = sorted((key, self._macro_digests.get(key)) for key in reached.macros)
            macros = self._digested[reached.macros] = digest_of(texts)
        package = str(entry.get("package_name") or self._values.project)
        # Packages' macros look variables up in the scope of their caller, or in their own.
        scopes = sorted(
            {package, *(str(self._macros[key]["package_name"]) for key in reached.macros & self._macros.keys())}
        )
        variables = {
            name: digest_of([self._values.variable(name, scope) for scope in scopes]) for name in sorted(reached.vars)
        }
        if reached.any_var:
            variables["any of them"] = digest_of(self._values.all_variables())
        environment = {name: digest_of(self._values.environment.get(name)) for name in sorted(reached.env)}
        return macros, variables, environment

    def _relation(self, unique_id: str) -> str:
        entry = self._nodes.get(unique_id) or self._sources.get(unique_id) or {}
        return str(entry.get("relation_name") or "")

    def _parents(self, unique_id: str) -> list[str]:
        """Return the nodes and sources right before a node, seen through ephemeral models."""
        found = reach(self._before(unique_id), lambda key: self._before(key) if self._is_ephemeral(key) else ())
        return [key for key in found if not self._is_ephemeral(key) and (key in self._nodes or key in self._sources)]

    def _before(self, unique_id: str) -> list[str]:
        return list((self._nodes[unique_id].get("depends_on") or {}).get("nodes") or ())

    def _is_ephemeral(self, unique_id: str) -> bool:
        entry = self._nodes.get(unique_id)
        return entry is not None and (entry.get("config") or {}).get("materialized") == "ephemeral"


def packages_of_dbt(adapter: str) -> frozenset[str]:
    """Return the packages of macros that come with dbt and its adapters."""
    return frozenset({"dbt", f"dbt_{adapter}", "dbt_postgres", "dbt_spark"})


def _own_unseen(entry: Mapping[str, Any]) -> str:
    text = str(entry.get("raw_code") or "")
    if entry["resource_type"] in ("seed", "unit_test"):
        return ""
    if entry.get("language") == "python":
        return unseen_in_python(text)
    told = [str((entry.get("test_metadata") or {}).get("kwargs") or ""), str((entry.get("config") or {}).get("where"))]
    return unseen_in_sql(text) or unseen_words("\n".join(told))


def _as_declared(entry: Mapping[str, Any], unseen: str) -> str:
    match ((entry.get("config") or {}).get("meta") or {}).get(REBUILD_KEY):
        case "always":
            return "is to be built always (meta.rebuild)"
        case "when_changed":
            return ""
        case _:
            return unseen


def config_of(entry: Mapping[str, Any]) -> object:
    """Return the settings of a node that can make its relation another one."""
    config = dict(entry.get("config") or {})
    described = any((config.get("persist_docs") or {}).values())
    columns = {
        name: column if described else {key: value for key, value in column.items() if key not in _TELLING}
        for name, column in (entry.get("columns") or {}).items()
    }
    settings = {key: value for key, value in config.items() if key not in _NOT_CONFIG}
    contract, constraints = (entry.get("contract") or {}).get("checksum"), entry.get("constraints")
    return [settings, columns, contract, constraints, entry.get("description") if described else None]


_TELLING = frozenset({"description", "meta", "tags", "config", "doc_blocks"})


def _hooks(entry: Mapping[str, Any]) -> list[str]:
    config = entry.get("config") or {}
    return [str(hook.get("sql") or "") for key in ("pre-hook", "post-hook") for hook in config.get(key) or ()]


def _lookups(text: str) -> _Reached:
    if "var" not in text:
        return _Reached()
    variables: set[str] = set()
    environment: set[str] = set()
    any_var = False
    for match in _LOOKUP.finditer(text):
        kind, name = match[1], match[3]
        if kind == "env_var":
            environment |= {name} if name else set()
        elif name:
            variables.add(name)
        else:
            any_var = True
    return _Reached(vars=frozenset(variables), env=frozenset(environment), any_var=any_var)
