"""Read a YAML file that a person edits, and name every mistake in it by line, all at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import yaml
from pydantic import BaseModel

from infrastructure.errors import ConfigError
from infrastructure.plain_text import count_of

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

Place = tuple[str | int, ...]
YamlValue = dict[Any, Any] | list[Any] | str | int | float | bool | None

# ${NAME} or ${NAME:-default}, as in compose files and shells.
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_EXPECTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "string_too_short": "at least {min_length} character",
    "string_too_long": "at most {max_length} characters",
    "list_type": "a list",
    "dict_type": "settings, as `name: value`",
    "model_type": "settings, as `name: value`",
    "model_attributes_type": "settings, as `name: value`",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "too_short": "at least {min_length} entry",
}
_LOOKS_SECRET = re.compile(r"pass|secret|token|key|credential|url", re.IGNORECASE)


@dataclass(frozen=True)
class Mistake:
    """One mistake in a file, and where."""

    place: Place
    text: str


@dataclass
class YamlFile:
    """The content of a YAML file, and the line on which each part of it begins."""

    path: Path
    data: dict[str, Any]
    lines: dict[Place, int] = field(default_factory=dict)

    def line_of(self, place: Place) -> int:
        """Return the line of a place, or of the nearest part around it that is in the file."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def place_of(self, error: ErrorDetails, steps: Collection[str] = ()) -> Place:
        """Return where in the file an error is, without the steps that only pydantic adds.

        Args:
            steps: tags of unions, which pydantic adds to the place.
        """
        place: Place = ()
        for part in error["loc"]:
            if part != "[key]" and (part not in steps or (*place, part) in self.lines):
                place = (*place, part)
        if error["type"].startswith("union_tag_"):
            return (*place, str(error.get("ctx", {}).get("discriminator", "")).strip("'"))
        while place and place not in self.lines and error["type"] != "missing":
            place = place[:-1]
        return place

    def mistakes(
        self,
        error: ValidationError,
        known: Callable[[Place], Sequence[str]],
        hints: Mapping[str, str] | None = None,
        steps: Collection[str] = (),
    ) -> dict[Place, Mistake]:
        """Return the mistakes that a model finds in the file, one per place; see `mistake_of` and `place_of`."""
        found: dict[Place, Mistake] = {}
        for each in error.errors():
            place = self.place_of(each, steps)
            found.setdefault(place, mistake_of(each, place, known, hints))
        return found

    def error(self, mistakes: Sequence[Mistake]) -> ConfigError:
        """Build the error that lists every mistake, in the order of the file."""
        count = count_of(len(mistakes), "mistake")
        ordered = sorted(mistakes, key=lambda mistake: (self.line_of(mistake.place), mistake.text))
        listed = [
            f"  line {self.line_of(mistake.place)}, {_dotted(mistake.place)}: {mistake.text}" for mistake in ordered
        ]
        return ConfigError("\n".join([f"{_relative(self.path)} has {count}:", *listed]))


def read_yaml(path: Path) -> YamlFile:
    """Read a YAML file whose top level is a mapping.

    Raises:
        ConfigError: the file does not exist, is not YAML, repeats a key or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise ConfigError(f"There is no file {_relative(path)}.") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{_relative(path)} cannot be read: {exc}") from exc
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as exc:
        raise _not_yaml(_relative(path), exc) from exc
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{_relative(path)} must contain settings as `name: value`.")
    lines: dict[Place, int] = {}
    repeated: list[Mistake] = []
    data = cast(dict[str, Any], _construct(node, (), lines, repeated))
    file = YamlFile(path, data, lines)
    if repeated:
        raise file.error(repeated)
    return file


def parse_yaml(content: str | bytes, source: object) -> object:
    """Return the document in a YAML text that is not one of our own files of settings.

    Args:
        source: the file that it is from, for the error.

    Raises:
        ConfigError: it is not YAML.
    """
    try:
        return cast(object, yaml.safe_load(content))
    except yaml.YAMLError as exc:
        raise _not_yaml(source, exc) from exc


def _not_yaml(source: object, exc: yaml.YAMLError) -> ConfigError:
    if not isinstance(exc, yaml.MarkedYAMLError):
        return ConfigError(f"{source} is not valid YAML: {exc}")
    mark = exc.problem_mark or exc.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "an unknown place"
    return ConfigError(f"{source} is not valid YAML, at {where}: {exc.problem or exc.context}.")


def _construct(node: yaml.Node, place: Place, lines: dict[Place, int], repeated: list[Mistake]) -> YamlValue:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        _note_repeated(node, place, repeated)
        # Puts the keys of `<<: *anchor` in front, so that the mapping's own keys win.
        yaml.SafeLoader("").flatten_mapping(node)
        mapping: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = cast(Any, _scalar(key_node))
            inner = (*place, key if isinstance(key, str | int) else str(key))
            lines[inner] = key_node.start_mark.line + 1
            mapping[key] = _construct(value_node, inner, lines, repeated)
        return mapping
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*place, index), lines, repeated) for index, item in enumerate(node.value)]
    return _scalar(node)


def _note_repeated(node: yaml.MappingNode, place: Place, repeated: list[Mistake]) -> None:
    first: dict[str, int] = {}
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        if key_node.value in first:
            text = f"given twice, on lines {first[key_node.value]} and {line}; keep one of them"
            repeated.append(Mistake((*place, key_node.value), text))
        first.setdefault(key_node.value, line)


def _scalar(node: yaml.Node) -> YamlValue:
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def put_in_variables(file: YamlFile, environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[Place, list[str]]]:
    """Replace every `${NAME}` and `${NAME:-default}` in the texts of a file.

    Returns:
        The data, and per place the variables that are not set and have no default, whose text stays.
    """
    unset: dict[Place, list[str]] = {}

    def replaced(value: YamlValue, place: Place) -> YamlValue:
        if isinstance(value, dict):
            return {key: replaced(inner, (*place, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [replaced(inner, (*place, index)) for index, inner in enumerate(value)]
        if not isinstance(value, str):
            return value
        missing = [m[1] for m in _VARIABLE.finditer(value) if m[2] is None and not environ.get(m[1])]
        if missing:
            unset[place] = missing
            return value
        return _VARIABLE.sub(lambda match: environ.get(match[1]) or match[2] or "", value)

    return cast(dict[str, Any], replaced(file.data, ())), unset


def unset_mistakes(unset: Mapping[Place, Sequence[str]]) -> dict[Place, Mistake]:
    """Return a mistake for every place that needs variables which are not set."""
    return {
        place: Mistake(place, f"set {all_of(names)}, or give a default as in ${{NAME:-default}}")
        for place, names in unset.items()
    }


def mistake_of(
    error: ErrorDetails,
    place: Place,
    known: Callable[[Place], Sequence[str]],
    hints: Mapping[str, str] | None = None,
) -> Mistake:
    """Return one pydantic error as a mistake: what was expected, and what may have been meant.

    Args:
        place: where it is in the file.
        known: gives the names that are allowed beside a place.
        hints: advice for names that people often try, by name.
    """
    name = str(place[-1]) if place else ""
    context = error.get("ctx", {})
    kind = error["type"]
    if kind == "extra_forbidden":
        allowed = known(place)
        if hints and name in hints:
            return Mistake(place, hints[name])
        return Mistake(place, f"no such setting{meant(name, allowed) or f'; there is {_listed(allowed)}'}")
    if kind in ("missing", "union_tag_not_found"):
        return Mistake(place, "is required")
    if kind in ("union_tag_invalid", "literal_error"):
        allowed = re.findall(r"'([^']+)'", str(context.get("expected_tags") or context.get("expected") or ""))
        found = str(context.get("tag") or error["input"])
        return Mistake(place, f"expected one of {_listed(allowed)}, found {found!r}{meant(found, allowed)}")
    if kind == "value_error":
        return Mistake(place, str(context.get("error") or error["msg"]))
    expected = _EXPECTED.get(kind, error["msg"].removeprefix("Input should be ")).format(**context)
    # A value is repeated only where it cannot be a secret written into the wrong place.
    found = error["input"]
    is_shown = isinstance(found, str | int | float) and not _LOOKS_SECRET.search(name)
    return Mistake(place, f"expected {expected}" + (f", found {found!r}" if is_shown else ""))


def meant(name: str, allowed: Sequence[str]) -> str:
    """Return "; did you mean …?" for a name that is close to an allowed one, else nothing."""
    close = get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else ""


def all_of(names: Sequence[str]) -> str:
    """Join names for a sentence: "A", "A and B", "A, B and C"."""
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])


def field_names(model: type[BaseModel]) -> list[str]:
    """Return the names of a model's settings as written in a file."""
    return [info.alias or name for name, info in model.model_fields.items()]


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _dotted(place: Place) -> str:
    return ".".join(str(part) for part in place) or "the file"
