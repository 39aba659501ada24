"""A target as a dbt profile: a profiles.yml that looks up its secrets, and those secrets."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import yaml

from infrastructure.blocks.documents import (
    GIVEN_KEY,
    PASSED_KEY,
    PROFILE_TYPE,
    PROGRAM_KEY,
    SOURCES_KEY,
    TASK_RUNS_KEY,
    Reference,
    SavedDocument,
)
from infrastructure.blocks.given import given_output
from infrastructure.commands import command
from infrastructure.errors import ConfigError, preview
from infrastructure.private_files import private_folder
from infrastructure.program import Program, find_program
from infrastructure.program import require_adapter as require_adapter_of
from infrastructure.targets.key_files import path_of_key
from infrastructure.targets.outputs import KEYS_AS_FILES, is_env_var, local_settings, output_of
from infrastructure.targets.secret_names import is_secret_name
from infrastructure.targets.settings import DEFAULT_TASK_RUNS, TaskRuns
from infrastructure.targets.target_file import Targets, load_targets
from infrastructure.targets.warehouses import WAREHOUSES, Target, profile_block
from infrastructure.workspace import EXAMPLE, targets_file, workspace
from infrastructure.yaml_file import meant

if TYPE_CHECKING:
    from infrastructure.server.client import Server

# dbt looks for a profiles.yml in its working folder.
LOCAL_PROFILES = EXAMPLE.project / "profiles.yml"

_MARK = "# Written by `uv run tributary setup` from infrastructure/targets.yml."
_ENV_VAR = re.compile(r"\{\{ env_var\('([A-Z0-9_]+)'\) \}\}")
# Settings that are paths on the machine where dbt runs, by warehouse.
_PATHS = {
    "duckdb": ("path",),
    "postgres": ("sslrootcert", "sslcert", "sslkey"),
    "snowflake": ("private_key_path",),
    "bigquery": ("keyfile",),
}


@dataclass(frozen=True)
class Profile:
    """One dbt output that is ready to run.

    Attributes:
        target: the dbt target.
        name: the dbt profile.
        output: the settings under `outputs.<target>`; secrets as `{{ env_var('DBT_ENV_SECRET_…') }}`.
        secrets: the values of those variables.
        pass_env: names of environment variables that dbt is given besides those it needs.
        dbt: which one builds the target, as targets.yml names it; None where it does not.
        task_runs: which nodes have a task run of their own.
    """

    target: str
    name: str
    output: dict[str, Any]
    secrets: dict[str, str] = field(repr=False)
    pass_env: tuple[str, ...] = ()
    dbt: str | None = None
    task_runs: TaskRuns = DEFAULT_TASK_RUNS

    @property
    def warehouse(self) -> str:
        """Return dbt's name for the kind of warehouse, such as duckdb."""
        return self.output["type"]

    def profiles_yml(self, profile_name: str | None = None) -> str:
        """Return the text of a profiles.yml with this output alone, and no secret in it.

        Args:
            profile_name: the name that the dbt project asks for; this profile's own when None.
        """
        profile = {"target": self.target, "outputs": {self.target: self.output}}
        return _yaml({profile_name or self.name: profile})

    def child_environment(self) -> dict[str, str]:
        """Return the variables that the dbt child needs besides the environment that it inherits."""
        return dict(self._values())

    def _values(self) -> Mapping[str, str]:
        """Return the secrets, with a path in place of a key that the client reads from a file."""
        looked_up = [_ENV_VAR.fullmatch(str(self.output.get(setting))) for setting in KEYS_AS_FILES]
        keys = {found[1] for found in looked_up if found and found[1] in self.secrets}
        return self.secrets | {name: path_of_key(self.secrets[name]) for name in keys}

    def connection(self) -> dict[str, Any]:
        """Return the output with the secrets filled in, for a Python client of the warehouse.

        Raises:
            ConfigError: it looks up a variable that is none of this profile's secrets.
        """
        return cast(dict[str, Any], self._filled(self.output))

    def _filled(self, value: object) -> object:
        if isinstance(value, dict):
            return {key: self._filled(inner) for key, inner in cast(dict[str, object], value).items()}
        if not is_env_var(value):
            return value
        found = _ENV_VAR.fullmatch(str(value))
        if not found or found[1] not in self.secrets:
            raise ConfigError(
                f"The profile of target {self.target} looks up {value}, which is in none of its credentials "
                f"blocks. {_again(self.target)}"
            )
        return self._values()[found[1]]


def profile_of(target_name: str, target: Target, secrets: Mapping[str, str], profile: str = "tributary") -> Profile:
    """Return the profile of a target as it is declared, without asking a server.

    Args:
        secrets: value by environment variable, as `read_secrets` returns them.
        profile: name of the dbt profile.

    Raises:
        ConfigError: a secret is not what its setting needs.
    """
    output = output_of(target_name, target, secrets)
    settings = located(output.settings)
    return Profile(target_name, profile, settings, output.secrets, output.pass_env, output.dbt, output.task_runs)


def declared_profile(target: str) -> Profile | None:
    """Return the profile of a target from targets.yml; None when it is not there or needs a secret.

    Raises:
        ConfigError: targets.yml can't be read.
    """
    targets = load_targets()
    declared = targets.targets.get(target)
    if declared is None or declared.secret_variables() or declared.given_block:
        return None
    return profile_of(target, declared, {}, targets.profile)


def load_profile(target: str) -> Profile:
    """Return the profile of a target from its Prefect blocks, and make the folder of a DuckDB file.

    Raises:
        ConfigError: a block is missing or unsafe, or the warehouse's dbt adapter is not installed.
        UpstreamUnavailable: the Prefect server does not answer.
    """
    from infrastructure.server.client import api_address, connect

    block = profile_block(target)
    with connect() as server:
        saved = server.read_block(PROFILE_TYPE, block)
        if saved is None:
            server.check()
            raise _missing_profile(target, server.block_names(PROFILE_TYPE), api_address())
        profile = read_profile(server, target, saved)
        require_adapter(profile.warehouse, target, profile.dbt)
    make_folder(profile)
    return profile


def read_profile(server: Server, target: str, saved: SavedDocument) -> Profile:
    """Return what a profile block and the blocks that it names say of a target.

    Raises:
        ConfigError: a block is missing, or is not what the target needs.
    """
    profile, sources, given = _read_profile(target, saved)
    if given:
        found = given_output(target, given, profile.output, _reader(server, f"Target {target}"))
        profile = replace(profile, output=located(found.settings), secrets=found.secrets)
        sources = found.sources
    return replace(profile, secrets=profile.secrets | _fetch(server, target, sources))


def _reader(server: Server, who: str) -> Callable[[Reference], SavedDocument]:
    def read(block: Reference) -> SavedDocument:
        saved = server.read_block(block.type_slug, block.name)
        if saved is None:
            there = server.block_names(block.type_slug)
            known = (
                f"of that type there is {preview(there)}{meant(block.name, there)}" if there else "none of that type is"
            )
            raise ConfigError(
                f"{who} uses your {block}, which is not on the Prefect server; {known}. Save it, or name another in "
                f"{targets_file()}."
            )
        return saved

    return read


@contextmanager
def dbt_environment(target: str) -> Iterator[dict[str, str]]:
    """Yield the variables with which dbt, however it is started, builds a target.

    DBT_PROFILES_DIR is a private folder that goes at the end; its profiles.yml looks the secrets up in the others.

    Raises:
        ConfigError: a block is missing or unsafe, or the warehouse's dbt adapter is not installed.
        UpstreamUnavailable: the Prefect server does not answer.
    """
    profile = load_profile(target)
    with tempfile.TemporaryDirectory(prefix="tributary-") as folder:
        (Path(folder) / "profiles.yml").write_text(profile.profiles_yml(), encoding="utf-8")
        yield {"DBT_PROFILES_DIR": folder, **profile.child_environment()}


def _missing_profile(target: str, blocks: list[str], address: str | None) -> ConfigError:
    saved = [name.removeprefix(profile_block("")) for name in blocks]
    where = f"the Prefect server at {address}" if address else "this machine's own Prefect server"
    there = f" It has the targets {preview(saved)}{meant(target, saved) or '.'}" if saved else ""
    return ConfigError(
        f"Target {target!r} is not set up on {where}: it has no block {PROFILE_TYPE}/{profile_block(target)}."
        f"{there} Create it with: {_setup_command(target)}"
    )


def _read_profile(target: str, saved: SavedDocument) -> tuple[Profile, dict[str, str], Reference | None]:
    """Return what a saved profile block says without its secrets, the places of these, and the block for the rest."""
    configs = saved.data.get("target_configs")
    inside: list[str] = []
    if isinstance(configs, Reference):
        inside = [f"target_configs, a reference to {configs}"]
    elif not isinstance(configs, dict):
        raise ConfigError(f"The block {profile_block(target)} has no target configs. {_again(target)}")
    else:
        inside = _credentials_in(cast(dict[str, Any], configs))
    if inside:
        raise ConfigError(
            f"The block {PROFILE_TYPE}/{profile_block(target)} holds credentials itself ({preview(inside)}), "
            "and Prefect shows the content of such a block to every reader of its API. "
            f"{_again(target)} Then change those credentials."
        )
    plain = cast(dict[str, Any], configs)
    extras = dict(plain.get("extras") or {})
    sources = cast(dict[str, str], extras.pop(SOURCES_KEY, {}))
    pass_env = tuple(str(name) for name in cast(list[Any], extras.pop(PASSED_KEY, None) or []))
    dbt = cast(str | None, extras.pop(PROGRAM_KEY, None))
    task_runs = cast(TaskRuns, extras.pop(TASK_RUNS_KEY, DEFAULT_TASK_RUNS))
    given = Reference(*str(extras.pop(GIVEN_KEY)).split("/", 1)) if GIVEN_KEY in extras else None
    outer = {"type": plain.get("type"), "schema": plain.get("schema"), "threads": plain.get("threads")}
    if not outer["type"] and not given:
        raise ConfigError(f"The block {profile_block(target)} does not name a warehouse. {_again(target)}")
    output = {key: value for key, value in outer.items() if value is not None} | extras
    output = output if given else located(output)
    return Profile(target, str(saved.data["name"]), output, {}, pass_env, dbt, task_runs), sources, given


def _credentials_in(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name, value in settings.items():
        if name in ("credentials", "connector") and value and not prefix:
            found.append(name)
        elif name == SOURCES_KEY:
            continue
        elif isinstance(value, dict):
            found += _credentials_in(cast(dict[str, Any], value), f"{prefix}{name}.")
        elif is_secret_name(name) and value and not isinstance(value, bool) and not is_env_var(value):
            found.append(prefix + name)
    return found


def _fetch(server: Server, target: str, sources: Mapping[str, str]) -> dict[str, str]:
    """Read the secrets of a profile from the credentials blocks that it names, one read per block."""
    blocks: dict[str, SavedDocument] = {}
    secrets: dict[str, str] = {}
    for variable, source in sources.items():
        block, _, path = source.partition("#")
        type_slug, _, name = block.partition("/")
        if block not in blocks:
            saved = server.read_block(type_slug, name)
            if saved is None:
                raise ConfigError(f"The block {block}, which target {target} needs, is missing. {_again(target)}")
            blocks[block] = saved
        value = _value_at(blocks[block].data, path)
        if not value:
            raise ConfigError(f"The block {block} has no {path}, which target {target} needs. {_again(target)}")
        secrets[variable] = value
    return secrets


def _value_at(data: object, path: str) -> str | None:
    for part in path.split("."):
        if isinstance(data, str):
            # The JSON of a key file that was typed into the UI may be saved as text.
            try:
                data = json.loads(data)
            except ValueError:
                return None
        data = cast(dict[str, object], data).get(part) if isinstance(data, dict) else None
    return data if isinstance(data, str) else None


def require_adapter(warehouse: str, target: str, dbt: str | None = None) -> Program:
    """Return the dbt of a target; raise an error if it has no adapter for the target's warehouse.

    Args:
        dbt: which one, as targets.yml names it.

    Raises:
        ConfigError: names the command that installs the adapter, or says why there is no such dbt.
    """
    program = find_program(dbt)
    require_adapter_of(program, warehouse, target, adapter_install(warehouse))
    return program


def adapter_install(warehouse: str) -> str:
    """Return the command that installs the dbt adapter of a warehouse into this environment."""
    return f"uv sync --extra {warehouse}" if warehouse in WAREHOUSES else f"uv pip install dbt-{warehouse}"


def located(output: dict[str, Any]) -> dict[str, Any]:
    """Return an output whose relative paths start at the workspace, wherever dbt is started."""
    changed = {name: _absolute(output[name]) for name in _PATHS.get(output["type"], ()) if name in output}
    return output | changed


def _absolute(path: str) -> str:
    if is_env_var(path):
        return path
    # md:, s3://, ducklake: and the like are not files of this machine.
    if re.match(r"[a-z0-9+]{2,}:", path):
        return path
    return str(workspace().folder / Path(path).expanduser())


def make_folder(profile: Profile) -> None:
    """Create the folder of a DuckDB file, which DuckDB does not do."""
    path = Path(profile.output["path"]) if profile.warehouse == "duckdb" else None
    if path and path.is_absolute():
        private_folder(path.parent)


def local_profiles_text(targets: Targets) -> str:
    """Return the text of a profiles.yml for work on this machine: every target, secrets looked up by dbt."""
    # What is in a block of one's own is not known here, and dbt by hand can't look it up.
    named = {name: target for name, target in targets.targets.items() if not target.given_block}
    outputs = {name: located(local_settings(target)) for name, target in named.items()}
    head = f"{_MARK}\n# Change that file, not this one. It holds no secret: dbt looks the variables up.\n"
    default = targets.default if targets.default in outputs else next(iter(outputs), targets.default)
    return head + _yaml({targets.profile: {"target": default, "outputs": outputs}})


def local_profiles_action(path: Path, text: str) -> Literal["create", "update", "unchanged", "not ours"]:
    """Return what writing the local profiles.yml would do; a file that setup did not write is left alone."""
    if not path.exists():
        return "create"
    found = path.read_text(encoding="utf-8")
    if found == text:
        return "unchanged"
    return "update" if found.startswith(_MARK) else "not ours"


def _yaml(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=10_000)


def _setup_command(target: str) -> str:
    return command(f"setup --target {target}")


def _again(target: str) -> str:
    return f"Create it again: {_setup_command(target)}."
