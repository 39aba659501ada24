"""Hand dbt exactly these nodes: by unique id and in a file, whatever they are called and however many they are.

dbt's selections are text that a name with a space, a comma, a bracket or a `+` does not survive, and dbt has none for
a unique id. It has one for the results of an earlier run, `result:error`, which it reads from a folder: so these nodes
are written down as the ones that failed. Tried on dbt-core 1.8, 1.10, 1.11 and 1.12 and on dbt 2.0.0a4, November 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from infrastructure.errors import ConfigError
from infrastructure.private_files import private_folder, write_whole

_STATE, _DEFER_STATE = "DBT_STATE", "DBT_DEFER_STATE"
_STATUS = "error"
# What dbt 1 wants of a result; dbt 2 takes less.
_RESULT: Mapping[str, Any] = {
    "status": _STATUS,
    "timing": [],
    "thread_id": "",
    "execution_time": 0.0,
    "adapter_response": {},
    "message": None,
    "failures": None,
    "compiled": None,
    "compiled_code": None,
    "relation_name": None,
}
_FRAME: Mapping[str, Any] = {
    "metadata": {
        "dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json",
        "dbt_version": "1.8.0",
        "generated_at": "2026-01-01T00:00:00.000000Z",
        "invocation_id": "00000000-0000-0000-0000-000000000000",
        "env": {},
    },
    "elapsed_time": 0.0,
    # Without a command, dbt 2 takes no result of it for one.
    "args": {"command": "build", "which": "build"},
}


def exact_arguments(folder: Path) -> list[str]:
    """Return the arguments for the nodes in a folder and no others, such as tests that merely hang on them."""
    return ["--select", f"result:{_STATUS}", "--state", str(folder), "--indirect-selection", "empty"]


def flags_beside(flags: Sequence[str]) -> tuple[str, ...]:
    """Return the flags of a command as they go with `exact_arguments`: it defers to the state that it did before."""
    kept: list[str] = []
    words = iter(flags)
    for word in words:
        name, is_one_word, value = word.partition("=")
        if name == "--indirect-selection":
            value = value if is_one_word else next(words, "")
        elif name == "--state":
            kept += ["--defer-state", value if is_one_word else next(words, "")]
        else:
            kept.append(word)
    return tuple(kept)


def run_results_of(unique_ids: Iterable[str]) -> dict[str, Any]:
    """Return the run_results.json that marks these nodes."""
    results = [{**_RESULT, "unique_id": unique_id} for unique_id in dict.fromkeys(unique_ids)]
    return {**_FRAME, "results": results}


def hand_over(unique_ids: Iterable[str] | None, folder: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Write the nodes of a command into its folder, and return the variables that dbt then needs besides.

    Args:
        unique_ids: None for a command that dbt itself finds the nodes of: nothing is written.
        environ: of dbt, whose own DBT_STATE may say what to defer to.

    Raises:
        ConfigError: the folder can't be written.
    """
    if unique_ids is None:
        return {}
    try:
        private_folder(folder)
        write_whole(folder / "run_results.json", orjson.dumps(run_results_of(unique_ids)))
    except OSError as exc:
        raise ConfigError(
            f"The nodes that dbt is to run can't be written to {folder}: {exc.strerror}. Free some space there."
        ) from exc
    state = environ.get(_STATE)
    return {_DEFER_STATE: state} if state and not environ.get(_DEFER_STATE) else {}
