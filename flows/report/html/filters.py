"""What the rows of the page can be filtered by: owner, tag, folder and dbt project of their node."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from flows.engine.sinks.folders import folder_of
from flows.report.html.contents import Document


@dataclass(frozen=True)
class Filters:
    """Values to choose from, and what each node has of them.

    Attributes:
        choices: title and values of each filter; those with a single value filter nothing and are left out.
        numbers: which row of `marks` a node is, by unique id.
        marks: of each node and filter, the numbers of its values.
    """

    choices: Sequence[tuple[str, Sequence[str]]]
    numbers: Mapping[str, int]
    marks: Sequence[Sequence[Sequence[int]]]

    def as_json(self) -> str:
        """Return the marks for the script of the page."""
        return json.dumps(self.marks, separators=(",", ":"))


def filters_of(rows: Mapping[str, Document]) -> Filters:
    """Return the filters of these nodes, given with their last results by unique id."""
    found = {title: {key: tuple(values(key, row)) for key, row in rows.items()} for title, values in _VALUES.items()}
    choices = {title: sorted({each for values in of.values() for each in values}) for title, of in found.items()}
    choices = {title: values for title, values in choices.items() if len(values) > 1}
    places = {title: {value: place for place, value in enumerate(values)} for title, values in choices.items()}
    marks = [[[places[title][value] for value in found[title][key]] for title in choices] for key in rows]
    return Filters(list(choices.items()), {key: number for number, key in enumerate(rows)}, marks)


def _folders(_: str, row: Document) -> Iterable[str]:
    """Yield the folder of a node and the one around it."""
    if folder := folder_of(row["path"] or ""):
        yield folder
        if (above := str(PurePosixPath(folder).parent)) != ".":
            yield above


_VALUES: Mapping[str, Callable[[str, Document], Iterable[str]]] = {
    "Owner": lambda _, row: [row["owner"]] if row["owner"] else [],
    "Tag": lambda _, row: row["tags"] or [],
    "Folder": _folders,
    "dbt project": lambda key, _: [key.split(".")[1]] if key.count(".") > 1 else [],
}
