"""The results of dbt's nodes as incidents, those that open and those that close: pure functions."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Set
from itertools import chain

from flows.alerts.incident import Incident, Severity
from flows.engine.artifacts.manifest import Manifest, reach
from flows.engine.artifacts.results import DbtResult, NodeResult
from flows.engine.ledger.explanation import Explanation, FailedNode, age_sentence, title_of

# A node is the same incident in every command: `run` may close what `build` opened.
NODES = "dbt"
FRESHNESS = "source freshness"
_TESTS = ("test", "unit_test")


def key_of(unique_id: str, project: str = "") -> str:
    """Return the key of a node's incident.

    Args:
        project: what tells the project from all others that are built on its target; see `State.project`.
    """
    return f"{_check(FRESHNESS if unique_id.startswith('source.') else NODES, unique_id, project)}/{unique_id}"


def _check(check: str, unique_id: str, project: str) -> str:
    """Return a check with its project, where a unique id does not say it.

    That has the name of a package: of one that several projects use, or of the second project of a name.
    """
    return check if not project or _package(unique_id) == project else f"{check} of {project}"


def _package(unique_id: str) -> str:
    # A unique id is <type>.<package>.<name>…
    return "".join(unique_id.split(".")[1:2])


def incidents_of(
    result: DbtResult,
    manifest: Manifest,
    link: str | None,
    retry_command: str | None,
    project: str = "",
    explanation: Explanation | None = None,
) -> dict[str, Incident]:
    """Return an incident for each node that failed or warned, by its unique id, in the words that explain it."""
    explained = {each.unique_id: each for each in explanation.failed} if explanation else {}
    unproven = _unproven(result, manifest)
    ages = result.artifacts.sources() if result.command.endswith("freshness") else {}
    said = {unique_id: age_sentence(age) for unique_id, age in ages.items()}
    return {
        node.unique_id: Incident(
            key=key_of(node.unique_id, project),
            severity=_severity(node, manifest, unproven),
            title=title_of(node),
            text=_text(explained.get(node.unique_id)) or node.message.strip() or said.get(node.unique_id, ""),
            target=result.target,
            owners=manifest.owners(node.unique_id),
            tags=manifest.tags(node.unique_id),
            link=link,
            retry_command=retry_command,
            count=node.failures if node.resource_type in _TESTS else None,
            affects=manifest.affects(node.unique_id),
            note=explained[node.unique_id].left if node.unique_id in explained else "",
        )
        for node in result.of("failed", "warned")
    }


def closed_keys(result: DbtResult, manifest: Manifest, open_keys: Iterable[str], project: str = "") -> list[str]:
    """Return the keys of open incidents that are over: their node succeeded, or is no longer in the project."""
    keys = list(open_keys)
    succeeded = {key_of(node.unique_id, project) for node in result.of("succeeded")}
    closed = [key for key in keys if key in succeeded]
    gone = [
        key
        for key in keys
        if manifest.project
        # Another project may be built on the same target.
        and _is_of(key, manifest.project, project)
        and key.partition("/")[2] not in manifest.nodes
    ]
    return list(dict.fromkeys([*closed, *gone]))


def _is_of(key: str, name: str, project: str) -> bool:
    """Say whether an incident is of a node of a project, by its name and by what tells it from others."""
    check, _, unique_id = key.partition("/")
    if check not in {each for plain in (NODES, FRESHNESS) for each in (plain, f"{plain} of {project}")}:
        return False
    is_by_name = _package(unique_id) == name and project in ("", name)
    return is_by_name or check.endswith(f" of {project}")


def renamed_keys(result: DbtResult, open_keys: Iterable[str], project: str, others: Container[str]) -> list[str]:
    """Return the keys of open incidents that an earlier version gave to nodes of a project, and that are others now.

    Args:
        others: all projects, by what tells them apart: the key is still that of one with the package's name.
    """
    built = {node.unique_id for node in result.of("succeeded", "failed", "warned")}
    return [
        key
        for key in open_keys
        if (unique_id := key.partition("/")[2]) in built
        and key == key_of(unique_id) != key_of(unique_id, project)
        and _package(unique_id) not in others
    ]


def passed(result: DbtResult, manifest: Manifest, severity: Severity, project: str = "") -> Iterator[Incident]:
    """Yield, for nodes that succeeded, the incidents of this severity that would be open had they failed."""
    if severity == "critical" and not result.of("failed", "skipped"):
        # The key of an alert about many nodes is the check alone.
        check = NODES if project in ("", manifest.project) else f"{NODES} of {project}"
        yield Incident(check, severity, "no node fails", target=result.target)
    held_up = _held_up_by(manifest)
    for node in result.of("succeeded"):
        if _is_critical(node.unique_id, manifest, held_up) == (severity == "critical"):
            yield Incident(
                key=key_of(node.unique_id, project),
                severity=severity,
                title=f"{node.name} passed",
                target=result.target,
                owners=manifest.owners(node.unique_id),
                tags=manifest.tags(node.unique_id),
            )


def _text(explained: FailedNode | None) -> str:
    if explained is None:
        return ""
    place = f"SQL: {explained.place}" if explained.place else ""
    return "\n".join(line for line in (*explained.said, place) if line)


def _severity(node: NodeResult, manifest: Manifest, unproven: Set[str]) -> Severity:
    if node.outcome == "warned":
        return "warning"
    return "critical" if _is_critical(node.unique_id, manifest, unproven) else "error"


def _is_critical(unique_id: str, manifest: Manifest, unproven: Set[str]) -> bool:
    """Say whether the failure of a node is critical: it is marked so, or keeps from running what is."""
    # A test that fails holds up what is downstream of the model that it tests.
    return manifest.is_critical(unique_id) or not unproven.isdisjoint({unique_id, *manifest.tested(unique_id)})


def _held_up_by(manifest: Manifest) -> set[str]:
    """Return all that would keep a critical node from running, should it fail."""
    critical = [node.unique_id for node in manifest.nodes.values() if node.is_critical]
    return set(reach(chain.from_iterable(map(manifest.before, critical)), manifest.before))


def _unproven(result: DbtResult, manifest: Manifest) -> set[str]:
    """Return critical nodes that were skipped, and everything upstream of them: a failure there is critical too."""
    skipped = [node.unique_id for node in result.of("skipped") if manifest.is_critical(node.unique_id)]
    return manifest.upstream(skipped).union(skipped) if skipped else set()
