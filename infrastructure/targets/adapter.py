"""A target on any dbt adapter: its settings as dbt's documents have them, each secret by the name of its variable."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, cast

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from infrastructure.targets.secret_names import ADDRESS_WITH_PASSWORD, PRIVATE_KEY, is_secret_name
from infrastructure.targets.settings import Variable, WarehouseTarget

_ADAPTER_PATTERN = "^[a-z][a-z0-9_]*$"
_FOUR = ("duckdb", "postgres", "snowflake", "bigquery")
_VARIABLE: TypeAdapter[str] = TypeAdapter(Variable)
_Path = tuple[str, ...]
_WHOLE = re.compile(r"0|-?[1-9][0-9]*")
_BOOLEANS = {"true": True, "false": False}
# What is text to an adapter though it may consist of digits.
_TEXTS = re.compile(
    r"(?:^|_)(?:id|user|username|name|account|database|dbname|schema|catalog|host|server|role|env)$", re.I
)


def _is_adapter(text: str) -> str:
    if text in _FOUR:
        raise ValueError(f"{text} has settings of its own here: write `warehouse: {text}` in place of `adapter`")
    if not re.match(_ADAPTER_PATTERN, text):
        raise ValueError("expected the `type` of a dbt adapter as in profiles.yml, such as databricks")
    return text


class AdapterTarget(WarehouseTarget):
    """A warehouse on any dbt adapter that is installed, such as databricks, redshift, trino or clickhouse.

    Every other setting is the adapter's own and reaches dbt as it stands. `NAME_env` names the variable that holds the
    value of the setting NAME, which is then kept as a secret.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    credential_settings: ClassVar[tuple[str, ...]] = ()

    adapter: Annotated[str, AfterValidator(_is_adapter)] = Field(
        description="The `type` of its dbt adapter, such as databricks.",
        json_schema_extra={"pattern": _ADAPTER_PATTERN},
    )

    @property
    def warehouse(self) -> str:
        """Return dbt's name for the kind of warehouse."""
        return self.adapter

    @property
    def _own(self) -> dict[str, Any]:
        return self.model_extra or {}

    @model_validator(mode="after")
    def _holds_no_secret(self) -> AdapterTarget:
        mistakes = list(_mistakes_in(self._own, ()))
        if mistakes:
            raise ValidationError.from_exception_data(
                type(self).__name__,
                # Without the value, which may be a secret.
                [
                    InitErrorDetails(type="value_error", loc=place, input=None, ctx={"error": ValueError(text)})
                    for place, text in mistakes
                ],
            )
        return self

    def secret_variables(self) -> dict[str, str]:
        """Return the environment variable of each secret, by dbt's name of the secret; a dot leads into a mapping."""
        return {".".join(path): variable for path, variable in _secrets_in(self._own, ())}

    def settings(self, look_up: Callable[[str], str]) -> dict[str, Any]:
        """Return dbt's output for the target.

        Args:
            look_up: returns what stands in place of a secret, by its name as in `secret_variables`.
        """
        plain = {"type": self.adapter, "schema": self.schema_name, "threads": self.threads}
        return plain | cast(dict[str, Any], _filled(self._own, (), look_up))

    def credentials_name(self) -> str:
        """Return the beginning of the names of the Secret blocks, one for each secret."""
        return self.credentials_block or f"{self.adapter.replace('_', '-')}-credentials"

    def credential_values(self) -> dict[str, object]:
        """Return what targets that share credentials must agree on."""
        return dict(self.secret_variables())


def read_numbers(written: Mapping[str, Any], filled: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry whose whole numbers and booleans from a variable are no texts: adapters refuse `port: "5432"`.

    Args:
        written: the entry as it is in the file, with `${NAME}`.
        filled: the same with the values of the variables.
    """
    read: dict[str, Any] = {}
    for name, value in filled.items():
        before = written.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            read[name] = read_numbers(cast(dict[str, Any], before), cast(dict[str, Any], value))
        elif isinstance(value, str) and value != before and not _TEXTS.search(str(name)):
            read[name] = int(value) if _WHOLE.fullmatch(value) else _BOOLEANS.get(value.lower(), value)
        else:
            read[name] = value
    return read


def _secrets_in(settings: dict[str, Any], path: _Path) -> Iterator[tuple[_Path, str]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _secrets_in(cast(dict[str, Any], value), (*path, str(name)))
        elif str(name).endswith("_env"):
            yield (*path, str(name).removesuffix("_env")), str(value)


def _filled(value: object, path: _Path, look_up: Callable[[str], str]) -> object:
    if not isinstance(value, dict):
        return value
    filled: dict[str, Any] = {}
    for key, inner in cast(dict[Any, Any], value).items():
        name = str(key)
        if isinstance(inner, dict) or not name.endswith("_env"):
            if inner is not None:
                filled[name] = _filled(inner, (*path, name), look_up)
        else:
            own = name.removesuffix("_env")
            filled[own] = look_up(".".join((*path, own)))
    return filled


def _mistakes_in(value: object, path: tuple[str | int, ...], is_in_list: bool = False) -> Iterator[tuple[Any, str]]:
    """Yield the place of every secret in clear, and of every `_env` that names no variable, with what to do."""
    if isinstance(value, list):
        for index, inner in enumerate(cast(list[object], value)):
            yield from _mistakes_in(inner, (*path, index), True)
    elif isinstance(value, dict):
        for key, inner in cast(dict[Any, Any], value).items():
            yield from _mistake_at(str(key), inner, (*path, str(key)), is_in_list)
    elif isinstance(value, str) and (PRIVATE_KEY in value or ADDRESS_WITH_PASSWORD.search(value)):
        what = "private key" if PRIVATE_KEY in value else "password"
        name = next((str(part) for part in reversed(path) if isinstance(part, str)), "")
        yield path, f"a {what} is in this value, and no secret is written in this file: {_way_out(name)}"


def _mistake_at(name: str, value: object, place: tuple[str | int, ...], is_in_list: bool) -> Iterator[tuple[Any, str]]:
    if len(place) == 1 and name == "warehouse":
        yield place, "goes with the four warehouses that have settings of their own; keep `adapter` or `warehouse`"
    elif len(place) == 1 and name == "type":
        yield place, "is called `adapter` here"
    elif name.endswith("_env") and not isinstance(value, dict):
        if is_in_list:
            yield place, "no setting in a list can be looked up: give the adapter this secret in another way"
        elif not isinstance(value, str):
            yield place, "expected the name of an environment variable, in upper case"
        else:
            try:
                _VARIABLE.validate_python(value)
            except ValidationError as exc:
                yield place, str(exc.errors(include_input=False)[0].get("ctx", {}).get("error"))
    elif is_secret_name(name) and isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
        yield place, f"no secret is written in this file: {_way_out(name)}"
    else:
        yield from _mistakes_in(value, place, is_in_list)


def _way_out(name: str) -> str:
    return f"put it in an environment variable, and name that with `{name}_env`"
