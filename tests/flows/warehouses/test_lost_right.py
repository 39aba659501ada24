"""A run that has lost the right to write to its target changes nothing more, whatever it was about to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from flows.warehouses.door import open_warehouse
from flows.warehouses.raw_tables import RawTable
from flows.warehouses.warehouse import Warehouse, asking_before_writes
from infrastructure.errors import UpstreamUnavailable
from tests.support.raw_data import RawData

NAMES = RawTable("names", (("name", "varchar"),))


class Right:
    """The right to write to a target, until it is lost."""

    def __init__(self) -> None:
        self.why_lost: str | None = None

    def lose(self) -> None:
        self.why_lost = "another machine has it"


@pytest.fixture
def right(raw: RawData) -> Iterator[Right]:
    right = Right()
    with asking_before_writes(raw.profile.target, lambda: right.why_lost):
        yield right


@pytest.fixture
def names(raw: RawData, right: Right) -> Iterator[Warehouse]:
    """A warehouse whose raw table holds one row."""
    with open_warehouse(raw.profile, raw.raw_schema) as warehouse:
        with warehouse.loading():
            warehouse.prepare([NAMES])
            warehouse.append(NAMES, [("old",)])
        yield warehouse


def relation(warehouse: Warehouse, raw: RawData, name: str = "names") -> str:
    return warehouse.placed(raw.raw_schema, name)


CHANGES: dict[str, Callable[[Warehouse, str], object]] = {
    "a statement": lambda warehouse, names: warehouse.execute(f"delete from {names}"),
    "a drop": lambda warehouse, names: warehouse.drop(names),
    "a copy": lambda warehouse, names: warehouse.copy(names, names.replace("names", "copied")),
    "a load": lambda warehouse, _: warehouse.append(NAMES, [("new",)]),
    "a replacement": lambda warehouse, _: warehouse.replace(NAMES, "select 'new' as name"),
    "a comment": lambda warehouse, _: warehouse.annotate(NAMES, "new"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_nothing_is_begun_any_more(
    raw: RawData, right: Right, names: Warehouse, change: Callable[[Warehouse, str], object]
) -> None:
    right.lose()
    with pytest.raises(UpstreamUnavailable, match=rf"target {raw.profile.target} was stopped because another machine"):
        change(names, relation(names, raw))
    assert names.rows(f"select * from {relation(names, raw)}") == [{"name": "old"}], "it can still be read"
    assert names.note(NAMES) is None
    assert not names.exists(relation(names, raw, "copied"))


def test_what_was_changed_in_a_transaction_before_is_undone_in_place_of_kept(
    raw: RawData, right: Right, names: Warehouse
) -> None:
    with pytest.raises(UpstreamUnavailable, match=r"another machine has it\. Nothing was changed\."), names.loading():
        names.delete(NAMES, {})
        names.append(NAMES, [("new",)])
        right.lose()
    assert names.rows(f"select * from {relation(names, raw)}") == [{"name": "old"}]


def test_a_statement_that_was_under_way_is_undone_when_it_ends(raw: RawData, right: Right, names: Warehouse) -> None:
    def rows() -> Iterator[tuple[str]]:
        yield ("new",)
        right.lose()
        yield ("newer",)

    with pytest.raises(UpstreamUnavailable, match="another machine has it"), names.loading():
        names.append(NAMES, rows())
    assert names.rows(f"select * from {relation(names, raw)}") == [{"name": "old"}]


def test_another_target_goes_on(raw: RawData) -> None:
    with (
        asking_before_writes("another", lambda: "another machine has it"),
        open_warehouse(raw.profile, raw.raw_schema) as warehouse,
        warehouse.loading(),
    ):
        warehouse.prepare([NAMES])
        assert warehouse.append(NAMES, [("new",)]) == 1
