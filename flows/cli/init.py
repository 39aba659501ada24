"""`tributary init`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from flows.cli.new_workspace import ProjectFacts, files_of, migrated_files, with_schemas
from flows.cli.options import examples
from flows.engine.context.project import read_project
from flows.engine.context.project_files import project_settings
from infrastructure.commands import near, program
from infrastructure.errors import ConfigError, preview
from infrastructure.plain_text import count_of
from infrastructure.private_files import private_folder
from infrastructure.screen import echo, styled
from infrastructure.targets.from_profiles import FoundProfile, FoundTarget, profile_in, profiles_places
from infrastructure.workspace import EXAMPLE, MARKER, ROOT, shown, workspace

_MIGRATED = (
    "These are copies: put the files of this repository back as they came (git checkout) once yours work. Data stays "
    "where it is. What runs have recorded is in .tributary here: move that folder along, or set TRIBUTARY_STATE to it."
)


@click.command(
    epilog=examples(
        "tributary init ../jaffle_shop",
        "tributary init ../operations --project-dir ../jaffle_shop --yes",
        "tributary init ../jaffle_shop --profiles ~/.dbt/profiles.yml",
    )
)
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--project-dir",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The dbt project; default: the one in DIR.",
)
@click.option(
    "--profiles",
    metavar="FILE",
    type=click.Path(exists=True, path_type=Path),
    help="The profiles.yml; default: that of DBT_PROFILES_DIR, else beside the project, else in ~/.dbt.",
)
@click.option("--migrate", is_flag=True, help="Take the files over that you edited in this repository.")
@click.option("--yes", is_flag=True, help="Write without a confirmation.")
def init(folder: Path, project_dir: Path | None, profiles: Path | None, migrate: bool, yes: bool) -> None:
    """Write a workspace for a dbt project: its targets, from its profiles.yml, and a first schedule.

    Shows every file first, and overwrites none. Secrets are never copied: each becomes the name of a variable to set.
    """
    place = _normal(folder)
    if place == ROOT:
        raise click.UsageError(
            "Give the folder of your dbt project, or of a new workspace: this one is Tributary's own."
        )
    if (place / MARKER).exists():
        raise ConfigError(
            f"{shown(place / MARKER)} exists: {place} is a workspace already, and nothing is overwritten."
        )
    if migrate:
        if profiles:
            raise click.UsageError("--migrate takes the targets of this repository: leave --profiles out.")
        project = _normal(project_dir or EXAMPLE.project)
        files = with_schemas(migrated_files(EXAMPLE, place, project), place)
        _show_and_write(place, files, [_MIGRATED], yes)
        echo("\n".join(["Next:", *(f"  {command}" for command in _commands(place))]))
        return
    project = _project_in(place, project_dir)
    settings = project_settings(project)
    if not settings.get("name"):
        read_project(project)  # Says what is wrong with it.
    profile, source = _profile_of(project, place, str(settings.get("profile") or settings["name"]), profiles)
    facts = _facts_of(project, place, str(settings["name"]))
    files = with_schemas(files_of(facts, profile), place)
    _show_and_write(place, files, [source, *(note for target in profile.targets for note in target.notes)], yes)
    echo("\n".join(_next_steps(place, profile)))


def _show_and_write(place: Path, files: Mapping[str, str], notes: Sequence[str], yes: bool) -> None:
    kept = [name for name in files if (place / name).exists()]
    for name, text in files.items():
        if name not in kept:
            echo(styled(f"{name}", bold=True) + f"\n{_indented(text)}")
    for note in notes:
        echo(styled(note, fg="yellow"))
    if kept:
        echo(styled(f"Left as they are, because they exist: {', '.join(kept)}.", fg="yellow"))
    if ".gitignore" in kept:
        there = (place / ".gitignore").read_text(encoding="utf-8", errors="replace").split()
        if missing := [line for line in files[".gitignore"].split() if line not in there]:
            echo(styled(f"Add to your .gitignore, if it should not be in git: {', '.join(missing)}", fg="yellow"))
    if not yes:
        click.confirm(f"Write {count_of(len(files) - len(kept), 'file')} to {place}?", default=True, abort=True)
    _write(place, {name: text for name, text in files.items() if name not in kept})
    echo(f"Wrote {count_of(len(files) - len(kept), 'file')} to {place}.\n")


def _project_in(place: Path, given: Path | None) -> Path:
    """Return the folder of the dbt project: the one that is given, else the one in the workspace's folder."""
    if given:
        return _normal(given)
    if (place / "dbt_project.yml").is_file():
        return place
    found = sorted(path.parent for path in place.glob("*/dbt_project.yml")) if place.is_dir() else []
    if len(found) == 1:
        return found[0]
    there = f"and several folders in it have one: {preview([path.name for path in found])}" if found else ""
    raise ConfigError(
        f"{place} has no dbt_project.yml, {there or 'nor has a folder in it'}. Name the dbt project with --project-dir."
    )


def _profile_of(project: Path, place: Path, name: str, given: Path | None) -> tuple[FoundProfile, str]:
    """Return the profile as targets, and a sentence on where it is from."""
    places = profiles_places(project, given, os.environ)
    path = next((each for each in places if each.is_file()), None)
    if path is None:
        if given or len(places) == 1:
            raise ConfigError(f"There is no file {places[0]}. Name a profiles.yml with --profiles.")
        dev = FoundTarget("dev", {"warehouse": "duckdb", "path": "data/dev.duckdb", "schema": "main"})
        sought = " and ".join(map(str, places))
        return FoundProfile(name, "dev", (dev,)), (
            f"There is no profiles.yml ({sought}): target dev is a DuckDB file of its own. Add yours to targets.yml."
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} can't be read: {exc}. Name another profiles.yml with --profiles.") from exc

    def from_workspace(relative: str) -> str:
        return os.path.relpath(project / relative, place)

    found = profile_in(text, str(path), name, from_workspace)
    return (
        found,
        f"The targets are those of profile {name} in {path}, which is read no more: targets.yml is in its place.",
    )


def _facts_of(project: Path, place: Path, name: str) -> ProjectFacts:
    from flows.services.airbyte.sync_events import connections_of, sources_with_freshness

    where = os.path.relpath(project, place)
    try:
        return ProjectFacts(name, where, sources_with_freshness(project), connections_of(project, os.environ))
    except ConfigError as exc:
        echo(styled(f"The sources of the project are not looked at: {exc}", fg="yellow"))
        return ProjectFacts(name, where)


def _write(place: Path, files: Mapping[str, str]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    # The marker last: until then the folder is no workspace, and the command can be given again.
    for name in sorted(files, key=lambda name: name == MARKER):
        private_folder((place / name).parent)
        with open(place / name, "x", encoding="utf-8") as file:
            file.write(files[name])


def _next_steps(place: Path, profile: FoundProfile) -> list[str]:
    """Return what to do next, as lines: variables to set, then commands."""
    variables = {name: what for target in profile.ready for name, what in target.secrets.items()}
    for target in profile.ready:
        for name in re.findall(r"\$\{(\w+)\}", str(target.settings)):
            variables.setdefault(name, f"a setting of {target.name}")
    unset = {name: what for name, what in variables.items() if not os.environ.get(name)}
    lines: list[str] = []
    if unset:
        width = max(map(len, unset))
        lines += ["Set these variables for the targets that you use:"]
        lines += [f"  {name:{width}}  {what}" for name, what in unset.items()]
    return [*lines, "Next:", *(f"  {command}" for command in [*_adapters(profile), *_commands(place)])]


def _adapters(profile: FoundProfile) -> list[str]:
    """Return the commands that install what is missing for the targets' warehouses."""
    from infrastructure.profiles import adapter_install, require_adapter

    commands: list[str] = []
    kinds = {
        str(target.settings.get("warehouse") or target.settings["adapter"])
        for target in profile.ready
        if target.settings
    }
    for kind in sorted(kinds):
        try:
            require_adapter(kind, profile.default)
        except ConfigError:
            commands.append(adapter_install(kind))
    return commands


def _commands(place: Path) -> list[str]:
    given = "" if workspace({}).folder == place else f" --workspace {near(place)}"
    return [f"{program()} setup{given}", f"{program()} run{given}"]


def _normal(folder: Path) -> Path:
    return Path(os.path.abspath(folder.expanduser()))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines()) + "\n"
