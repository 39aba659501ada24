"""Read a YAML file of settings into a typed model, and name every mistake by its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from infrastructure.yaml_file import Place, field_names, read_yaml

Model = TypeVar("Model", bound=BaseModel)


def read_settings(path: Path, model: type[Model]) -> Model:
    """Read a file of settings.

    Raises:
        ConfigError: the file can't be read, or lists every mistake in it.
    """
    file = read_yaml(path)
    try:
        return model.model_validate(file.data)
    except ValidationError as exc:
        raise file.error(list(file.mistakes(exc, lambda at: _names_beside(model, at)).values())) from exc


def _names_beside(model: type[BaseModel], place: Place) -> list[str]:
    """Return the settings that are allowed beside a place."""
    annotation: Any = model
    for part in place[:-1]:
        fields = annotation.model_fields if _is_model(annotation) else None
        # A number in a list and a name that a person chose both lead to the same kind of settings.
        annotation = _inside(fields[part].annotation if fields and part in fields else annotation)
    return field_names(annotation) if _is_model(annotation) else []


def _inside(annotation: Any) -> Any:  # noqa: ANN401  (any annotation)
    """Return the type of the entries of a list or mapping, or of an optional value."""
    if _is_model(annotation) or get_origin(annotation) is None:
        return annotation
    return next((found for found in map(_inside, get_args(annotation)) if _is_model(found)), annotation)


def _is_model(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
