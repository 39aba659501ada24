"""`--changed` against a full build, over random edits: after each, both warehouses hold the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.garden import EDITABLE, FILES, TABLES, Garden
from tests.support.in_process import run_dbt_in_process

# Each case is a garden, planted and built anew, and up to three edits at a time, three times over.
CASES = int(os.environ.get("TRIBUTARY_TEST_CASES", "1"))
STEPS = 3

Edit = Callable[[Garden], None]


def _edits() -> st.SearchStrategy[tuple[str, int]]:
    kinds = [
        *(f"edit {name}" for name in EDITABLE),
        *(f"drop {table}" for table in TABLES),
        "seed",
        "variable",
        "variable of a macro",
        "environment",
        "new rows",
        "new rows without freshness",
        "add a model",
        "take a model away",
        "break",
        "mend",
        "build a part",
        "full refresh",
        "describe",
        "nothing",
    ]
    return st.tuples(st.sampled_from(kinds), st.integers(1, 5))


def apply(garden: Garden, kind: str, number: int) -> None:
    """Do one edit."""
    verb, _, rest = kind.partition(" ")
    if verb == "edit":
        garden.edit(rest, number)
    elif verb == "drop":
        garden.sql(f"drop table if exists {rest}")
    elif kind == "seed":
        garden.write("seeds/colours.csv", f"{FILES['seeds/colours.csv']}{number + 3},{number}\n")
    elif kind == "variable":
        garden.vars = {**garden.vars, "shade": number}
    elif kind == "variable of a macro":
        garden.vars = {**garden.vars, "factor": number}
    elif kind == "environment":
        garden.environment(f"rule {number}")
    elif kind == "new rows":
        garden.load(number)
    elif kind == "new rows without freshness":
        garden.sql(f"insert into raw.visits values ({number + 10}, {number})")
    elif kind == "add a model":
        garden.write(f"models/more_{number}.sql", "select id, weight from {{ ref('inside') }}")
        garden.write("models/on_more.sql", f"select count(*) as n from {{{{ ref('more_{number}') }}}}")
    elif kind == "take a model away":
        for name in ["models/on_more.sql", *(f"models/more_{more}.sql" for more in range(1, 6))]:
            (garden.project / name).unlink(missing_ok=True)
    elif kind == "break":
        garden.write("models/joined.sql", "select nowhere as id from {{ ref('events') }}")
    elif kind == "mend":
        garden.write("models/joined.sql", FILES["models/joined.sql"])
    elif kind == "build a part":
        garden.build_both(select="shaded" if number % 2 else "+kept")
    elif kind == "full refresh":
        garden.build_both(full_refresh=True)
    elif kind == "describe":
        garden.write("models/docs.yml", f"models: [{{name: last, description: 'The {number}th'}}]")


@pytest.fixture
def garden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Garden]:
    with pytest.MonkeyPatch.context() as patch:
        run_dbt_in_process(patch)
        yield Garden(tmp_path_factory.mktemp("plots") / "garden", patch)


@given(
    steps=st.lists(
        st.lists(_edits(), min_size=1, max_size=3),
        min_size=STEPS,
        max_size=STEPS,
    )
)
@settings(
    max_examples=CASES,
    deadline=None,
    # Shrinking would take minutes a try; what failed is printed, step by step.
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_after_any_edits_the_tables_are_those_of_a_full_build(
    garden: Garden, steps: list[list[tuple[str, int]]]
) -> None:
    garden.plant()
    garden.build_both()
    done: list[list[tuple[str, int]]] = []
    for step in steps:
        for kind, number in step:
            apply(garden, kind, number)
        done.append(step)
        garden.build_both()
        assert garden.contents("changed") == garden.contents("whole"), f"after {done}"
