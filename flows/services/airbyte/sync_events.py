"""A finished Airbyte sync, and the rule by which it starts a run: the same for the receiver and the reconciler.

Pure and cheap: no client, no clock and no environment, so that both follow one rule.

A run is tagged with every sync that it covers. Prefect keeps an idempotency key for ever, but the key of a union is not
that of its parts. So the starter looks for the tags first, and gives the key against starting the same union twice.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from flows.engine.artifacts.manifest import CONNECTION_KEY
from infrastructure.errors import ConfigError, preview
from infrastructure.yaml_file import parse_yaml

# The deployment that finished syncs start, as <flow>/<deployment>.
DEPLOYMENT = "dbt-transformation-flow/production"
# Held while looking for the tags of syncs and then starting a run of them: a global concurrency limit of one.
START_LIMIT = "airbyte-sync-runs"
# The Prefect variable with the heartbeat of its holder.
START_SIGN = "airbyte_sync_runs_starter"
FRESHNESS_KEY = "freshness_hours"

_TAG = "airbyte-sync"
# Prefect takes longer keys, but people read them.
_MAX_KEY = 200
_ENV_VAR = re.compile(
    r"\{\{-?\s*env_var\(\s*(['\"])(?P<name>\w+)\1\s*(?:,\s*(['\"])(?P<default>[^'\"]*)\3\s*)?\)\s*-?\}\}"
)


@dataclass(frozen=True, order=True, slots=True)
class AirbyteSync:
    """One job of one Airbyte connection.

    Attributes:
        connection_id: UUID, in lower case.
    """

    connection_id: str
    job_id: int

    @property
    def tag(self) -> str:
        """Return the tag of the run that covers this sync."""
        return f"{_TAG}:{self.connection_id}:{self.job_id}"


def sync_of(connection_id: object, job_id: object) -> AirbyteSync | None:
    """Return the sync with these ids from outside, in any spelling; None when they are not valid."""
    try:
        connection = str(UUID(str(connection_id)))
        job = int(cast(Any, job_id)) if not isinstance(job_id, (bool, float)) else 0
    except (ValueError, TypeError):
        return None
    return AirbyteSync(connection, job) if 0 < job < 2**63 else None


def syncs_of(tags: Iterable[str]) -> list[AirbyteSync]:
    """Return the syncs that a run covers, by its tags."""
    found = (tag.split(":") for tag in tags if tag.startswith(f"{_TAG}:"))
    read = (sync_of(parts[1], parts[2]) for parts in found if len(parts) == 3)
    return sorted(sync for sync in read if sync)


def idempotency_key(syncs: Iterable[AirbyteSync], deployment: str = DEPLOYMENT) -> str:
    """Return the key under which Prefect starts one run of these syncs, whatever their order and number of repeats.

    The deployment is part of it: Prefect keeps keys per flow, and would answer with another deployment's run.
    """
    tags = sorted({sync.tag for sync in syncs})
    key = f"{deployment}:{'+'.join(tags)}"
    if len(key) <= _MAX_KEY:
        return key
    return f"{deployment}:{_TAG}:{len(tags)}:{hashlib.sha256(key.encode()).hexdigest()}"


def sources_of(syncs: Iterable[AirbyteSync], connections: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the dbt sources that these syncs load, each once; unknown connections load none."""
    return sorted({source for sync in syncs for source in connections.get(sync.connection_id, ())})


def run_parameters(
    syncs: Iterable[AirbyteSync], connections: Mapping[str, Sequence[str]], target: str
) -> dict[str, Any]:
    """Return the parameters of `dbt_transformation_flow` for the union of these syncs.

    A connection's newest job covers its earlier ones.
    """
    each = sorted(set(syncs))
    newest = {sync.connection_id: sync.job_id for sync in each}
    return {"source": sources_of(each, connections), "jobs": newest, "target": target}


def connections_of(project: Path, environ: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return the dbt sources by the Airbyte connection that loads them, from the project's YAML files.

    They are read without dbt, so that a receiver needs the project's folder and nothing else. `env_var()` is
    looked up in `environ`; other Jinja in a connection's id is an error.

    Raises:
        ConfigError: the project or one of its files can't be read, or an id is no UUID.
    """
    found: dict[str, set[str]] = {}
    wrong: list[str] = []
    for path, source in _sources(project):
        for value in _ids(source):
            text = _looked_up(value, environ)
            try:
                connection = str(UUID(text))
            except ValueError:
                wrong.append(f"{text or value!r} of source {source.get('name')} in {path}")
                continue
            found.setdefault(connection, set()).add(str(source.get("name")))
    if wrong:
        raise ConfigError(
            f"{CONNECTION_KEY} has to be the UUID of an Airbyte connection, or a list of them: {preview(wrong)}. "
            "Airbyte shows it in the address of the connection's page; an environment variable is looked up with "
            "\"{{ env_var('NAME', 'default') }}\"."
        )
    return {connection: tuple(sorted(names)) for connection, names in sorted(found.items())}


def freshness_hours_of(project: Path) -> dict[str, float]:
    """Return how many hours the sources may go without new data, by name, for those whose meta sets it.

    Raises:
        ConfigError: the project or one of its files can't be read.
    """
    found: dict[str, float] = {}
    for _, source in _sources(project):
        for value in _meta(source, FRESHNESS_KEY):
            if isinstance(value, int | float) and value > 0:
                found[str(source.get("name"))] = float(value)
    return found


def source_names(project: Path) -> list[str]:
    """Return the names of all sources of a dbt project.

    Raises:
        ConfigError: the project or one of its files can't be read.
    """
    return sorted({str(source.get("name")) for _, source in _sources(project)})


def sources_with_freshness(project: Path) -> list[str]:
    """Return the names of the sources that say how fresh they or one of their tables have to be.

    Raises:
        ConfigError: the project or one of its files can't be read.
    """
    return sorted({str(source.get("name")) for _, source in _sources(project) if any(map(_is_fresh, _owners(source)))})


def _is_fresh(owner: Mapping[str, Any]) -> bool:
    config = owner.get("config")
    return bool(owner.get("freshness") or (isinstance(config, dict) and cast(dict[str, Any], config).get("freshness")))


def _sources(project: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the sources that a project's own YAML files declare, with the file."""
    settings = _read(project / "dbt_project.yml")
    for folder in settings.get("model-paths") or ["models"]:
        for path in sorted((project / str(folder)).rglob("*.y*ml")):
            declared = _read(path).get("sources")
            for source in cast(list[Any], declared) if isinstance(declared, list) else []:
                if isinstance(source, dict):
                    yield path.relative_to(project), cast(dict[str, Any], source)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = parse_yaml(path.read_bytes(), path)
    except OSError as exc:
        raise ConfigError(f"{path} can't be read ({exc.strerror}). Name the folder of a dbt project.") from exc
    return cast(dict[str, Any], document) if isinstance(document, dict) else {}


def _ids(source: Mapping[str, Any]) -> list[str]:
    """Return the connection ids that a source and its tables name."""
    values = [value for owner in _owners(source) for value in _meta(owner, CONNECTION_KEY)]
    each = [item for value in values for item in (cast(list[Any], value) if isinstance(value, list) else [value])]
    return list(dict.fromkeys(str(item) for item in each if item))


def _owners(source: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a source and its tables."""
    tables = [table for table in source.get("tables") or () if isinstance(table, dict)]
    return [source, *cast(list[dict[str, Any]], tables)]


def _meta(owner: Mapping[str, Any], key: str) -> list[Any]:
    """Return the values of a key under `config: meta:` and under the older `meta:`."""
    places = [owner, owner.get("config")]
    metas = [cast(dict[str, Any], place).get("meta") for place in places if isinstance(place, dict)]
    return [cast(dict[str, Any], meta)[key] for meta in metas if isinstance(meta, dict) and key in meta]


def _looked_up(text: str, environ: Mapping[str, str]) -> str:
    return _ENV_VAR.sub(lambda match: environ.get(match["name"], match["default"] or ""), text).strip()
