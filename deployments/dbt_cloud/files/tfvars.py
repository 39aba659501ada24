"""Read and write jobs in `.tfvars` files, which Terraform reads too."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from deployments.dbt_cloud.files.config import TFVARS, Config, definitions
from deployments.dbt_cloud.model.definition import JobDefinition
from infrastructure.errors import ConfigError

_NUMBERS = ("account_id", "project_id", "environment_id")
_KNOWN = (*_NUMBERS, "team_name", "jobs", "utc_schedules")
# The parser returns an expression as text of this form; `$${` is an escaped, literal one.
_EXPRESSION = re.compile(r"(?<!\$)\$\{|(?<!%)%\{")


def read_tfvars(files: Sequence[Path]) -> Config:
    """Read `.tfvars` and `.tfvars.json` files; as in Terraform, a later file overrides an earlier one.

    Raises:
        ConfigError: a file is not HCL, sets an unknown variable, or a job is wrong.
    """
    values: dict[str, Any] = {}
    source = ""
    for path in files:
        document = _read(path)
        if unknown := sorted(document.keys() - set(_KNOWN)):
            raise ConfigError(f"{path} sets {', '.join(unknown)}, which is unknown. There is {', '.join(_KNOWN)}.")
        values |= document
        source = str(path) if "jobs" in document else source
    if not isinstance(values.get("jobs"), list):
        raise ConfigError(f"{', '.join(map(str, files))} has no list `jobs`.")
    jobs = cast(list[Any], values["jobs"])
    entries = [(f"{source}: jobs[{_label(index, job)}]", _without_nulls(job)) for index, job in enumerate(jobs)]
    return Config(
        TFVARS,
        definitions(entries),
        *(_number(name, values.get(name)) for name in _NUMBERS),
        team_name=values.get("team_name"),
    )


def write_tfvars(jobs: Sequence[JobDefinition]) -> str:
    """Return jobs as the text of a `.tfvars` file, without default values."""
    lines = ["jobs = ["]
    for job in jobs:
        fields = job.model_dump(exclude_defaults=True, exclude={"identifier", "linked_id"})
        # The schedule is written even when it is the default, as readers look for it first.
        fields.setdefault("schedule_type", job.schedule_type)
        width = max(map(len, fields))
        lines.append("  {")
        lines += [f"    {name.ljust(width)} = {_hcl(value, '    ')}" for name, value in fields.items()]
        lines.append("  },")
    return "\n".join([*lines, "]", ""])


def _read(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8-sig")
    if path.name.endswith(".json"):
        try:
            return cast(dict[str, Any], json.loads(text))
        except json.JSONDecodeError as exc:
            raise ConfigError(f"{path} is not valid JSON: {exc}.") from exc
    try:
        import hcl2
        from lark.exceptions import LarkError
    except ModuleNotFoundError as exc:
        raise ConfigError(
            "Reading .tfvars files needs python-hcl2: uv sync --extra dbt-cloud. "
            "Files named .tfvars.json can be read without it."
        ) from exc
    options = hcl2.SerializationOptions(
        strip_string_quotes=True,
        explicit_blocks=False,
        with_comments=False,
        preserve_heredocs=False,
        preserve_scientific_notation=False,
    )
    try:
        document = cast(dict[str, Any], hcl2.loads(text, serialization_options=options))
    except LarkError as exc:
        line = getattr(exc, "line", None)
        raise ConfigError(f"{path} is not valid HCL{f', line {line}' if line else ''}: {_first_line(exc)}") from exc
    return cast(dict[str, Any], _without_escapes(document, str(path)))


def _without_escapes(value: object, place: str) -> object:
    """Return values without HCL's escapes; a `.tfvars` file can't contain expressions, in Terraform neither."""
    if isinstance(value, dict):
        fields = cast(dict[str, object], value)
        return {str(name).strip('"'): _without_escapes(it, f"{place}: {name}") for name, it in fields.items()}
    if isinstance(value, list):
        return [_without_escapes(it, f"{place}[{index}]") for index, it in enumerate(cast(list[object], value))]
    if isinstance(value, str):
        if _EXPRESSION.search(value):
            raise ConfigError(
                f"{place} is an expression, and variables files have values only: {value!r}. "
                "For a literal ${ write $${."
            )
        return _unescaped(value).replace("$${", "${").replace("%%{", "%{")
    return value


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    simple = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}

    def letter(found: re.Match[str]) -> str:
        if (digits := found[1] or found[2]) is not None:
            return chr(int(digits, 16))
        return simple.get(found[3], found[0])

    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", letter, text)


def _without_nulls(job: object) -> object:
    # In Terraform, null is the same as leaving it out.
    if not isinstance(job, dict):
        return job
    return {name: value for name, value in cast(dict[str, Any], job).items() if value is not None}


def _label(index: int, job: object) -> str:
    name = cast(dict[str, Any], job).get("name") if isinstance(job, dict) else None
    return str(name or index)


def _number(name: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isdigit():
        return int(value)
    raise ConfigError(f"{name} has to be a number, not {value!r}.")


def _first_line(exc: Exception) -> str:
    return str(exc).strip().splitlines()[0]


def _hcl(value: object, indent: str) -> str:
    if isinstance(value, dict):
        inner = [f"{indent}  {name} = {_hcl(it, indent + '  ')}" for name, it in cast(dict[str, object], value).items()]
        return "\n".join(["{", *inner, indent + "}"])
    if isinstance(value, list):
        items = [_hcl(it, indent + "  ") for it in cast(list[object], value)]
        if all(isinstance(it, int) for it in cast(list[object], value)):
            return f"[{', '.join(items)}]"
        return "\n".join(["[", *(f"{indent}  {item}," for item in items), indent + "]"])
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("${", "$${").replace("%{", "%%{") if isinstance(value, str) else text
