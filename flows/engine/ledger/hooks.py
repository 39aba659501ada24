"""Hooks of a command, on-run-start and on-run-end: they have outcomes, and are run again where they failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flows.engine.artifacts.manifest import Node
from flows.engine.artifacts.results import NodeResult
from flows.engine.context.events import HOOK
from infrastructure.errors import ConfigError, preview

# In this order, as the cheaper ones come first; what only appends, or keeps history, is not run for a hook's sake.
_REPEATABLE: Sequence[Sequence[str]] = (("view",), ("test", "unit"), ("table", "seed"))


def is_hook(unique_id: str) -> bool:
    """Say whether this is a statement of on-run-start or on-run-end."""
    return unique_id.startswith(f"{HOOK}.")


def are_all_kept_back(results: Mapping[str, NodeResult]) -> bool:
    """Say whether no node has run, as after an on-run-start that failed."""
    return all(node.outcome == "skipped" for node in results.values() if not is_hook(node.unique_id))


def nodes_for_hooks(done: Iterable[NodeResult | Node]) -> list[str]:
    """Return nodes that can be run again for the sake of hooks, which dbt runs together with nodes alone.

    They are one of each schema, as hooks often grant rights on the schemas of the nodes that ran.

    Args:
        done: nodes that have come to a good end.

    Raises:
        ConfigError: there are none; another run of a node that appends would append twice.
    """
    good = [node for node in done if not is_hook(node.unique_id)]
    for kinds in _REPEATABLE:
        fit = [node for node in good if node.materialized in kinds]
        if fit:
            return list({(node.relation or "").rpartition(".")[0]: node.unique_id for node in fit}.values())
    names = preview([node.name for node in good])
    raise ConfigError(
        "The hooks of this run are left. dbt runs them together with nodes alone, and no node of this run "
        f"({names or 'none is done'}) can be run again without adding rows. "
        "Run without --resume or --changed, or run the hooks' statements by hand."
    )
