"""The files of a dbt project as fingerprints: proof that nothing of it has changed, without a parse."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import yaml

from infrastructure.passed_on import LookUps, look_ups_in

# Where dbt looks when dbt_project.yml does not say.
_FOLDERS = {
    "model-paths": ["models"],
    "seed-paths": ["seeds"],
    "test-paths": ["tests"],
    "analysis-paths": ["analyses"],
    "macro-paths": ["macros"],
    "snapshot-paths": ["snapshots"],
    "function-paths": ["functions"],
    "docs-paths": [],
    "asset-paths": [],
}
_OUTPUT = frozenset({"target", "logs", "__pycache__"})
# What Jinja may stand in; data, such as that of seeds, can be large and looks nothing up.
_WITH_JINJA = frozenset({".sql", ".yml", ".yaml", ".md", ".py", ".jinja", ".j2"})


@dataclass(frozen=True)
class ProjectFiles:
    """What dbt would read of a project.

    Attributes:
        digest: of every file's path and content.
        digests: of each file by its absolute path.
        environment_names: the variables that any file looks up by name.
        is_provable: False where a file can be steered by what no fingerprint covers.
    """

    digest: str
    digests: Mapping[str, str]
    environment_names: tuple[str, ...]
    is_provable: bool


def read_project_files(folder: Path) -> ProjectFiles:
    """Fingerprint the files of a project and of its installed packages; their content, so that copies are equal."""
    settings = project_settings(folder)
    digests: dict[str, str] = {}
    names: set[str] = set()
    is_provable = True
    paths = _paths(folder, settings)
    if paths is None:
        is_provable, paths = False, _everything(folder)
    for path in paths:
        content = path.read_bytes()
        digests[str(path)] = hashlib.sha256(content).hexdigest()
        found = look_ups_in(content, str(path))
        names |= found.names
        is_provable = is_provable and not (found.prefixes or found.unknown_in)
    whole = hashlib.sha256()
    for name, digest in sorted(digests.items()):
        whole.update(f"{os.path.relpath(name, folder)}\0{digest}\0".encode())
    return ProjectFiles(whole.hexdigest(), digests, tuple(sorted(names)), is_provable)


def look_ups_of(folder: Path) -> LookUps:
    """Return the environment variables that the files of a project and of its installed packages look up."""
    # Where only dbt knows the folders, all are looked through.
    paths = _paths(folder, project_settings(folder)) or _everything(folder)
    found: list[LookUps] = []
    for path in paths:
        # dbt is told to look for profiles elsewhere, and this one may name the secrets of every target.
        if path.suffix.lower() in _WITH_JINJA and path != folder / "profiles.yml":
            with contextlib.suppress(OSError):
                about = path.stat()
                found.append(_look_ups_in_file(str(path), about.st_mtime_ns, about.st_size))
    return LookUps(
        frozenset(name for each in found for name in each.names),
        frozenset(prefix for each in found for prefix in each.prefixes),
        tuple(file for each in found for file in each.unknown_in),
    )


@lru_cache(maxsize=100_000)
def _look_ups_in_file(path: str, changed_at: int, size: int) -> LookUps:
    """Read a file once for as long as it stays as it is: a run starts dbt several times."""
    return look_ups_in(Path(path).read_bytes(), path)


def variables_by_package(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return the variables of a project and of its packages, by the name of each.

    They stand under `vars:` in dbt_project.yml or, since dbt 1.12, in vars.yml.
    """
    found: dict[str, Mapping[str, Any]] = {}
    packages = packages_folder(folder, os.environ)
    places = sorted(packages.iterdir()) if packages and packages.is_dir() else []
    for place in [*places, folder]:
        settings = project_settings(place)
        if name := settings.get("name"):
            found[str(name)] = {**(yaml_mapping(place / "vars.yml").get("vars") or {}), **(settings.get("vars") or {})}
    return found


def project_settings(folder: Path) -> dict[str, Any]:
    """Return what dbt_project.yml says; empty where it can't be read, which dbt itself reports."""
    return yaml_mapping(folder / "dbt_project.yml")


def packages_folder(folder: Path, environ: Mapping[str, str]) -> Path | None:
    """Return where the packages of a project are installed; None where only dbt can tell.

    Args:
        environ: what the path may look up, as in `packages-install-path: "{{ env_var('DBT_PACKAGES') }}"`.
    """
    path = str(project_settings(folder).get("packages-install-path") or "dbt_packages")
    place = rendered(path, environ)
    return None if place is None else folder / place


def rendered(text: str, environ: Mapping[str, str]) -> str | None:
    """Return a text of dbt_project.yml as dbt renders it; None where only dbt can."""
    if "{{" not in text and "{%" not in text:
        return text
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    def env_var(name: str, default: str | None = None) -> str:
        return environ[name] if default is None else environ.get(name, default)

    try:
        return SandboxedEnvironment(undefined=StrictUndefined).from_string(text).render(env_var=env_var)
    except (TemplateError, KeyError, TypeError):
        return None


def yaml_mapping(path: Path) -> dict[str, Any]:
    """Return what a YAML file says; empty where it is missing or is no mapping, which dbt itself reports."""
    try:
        document = yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return cast(dict[str, Any], document) if isinstance(document, dict) else {}


def _paths(folder: Path, settings: Mapping[str, Any]) -> Iterator[Path] | None:
    """Return the files of a project; None where only dbt can tell in which folders they are."""
    listed = [str(path) for key, default in _FOLDERS.items() for path in settings.get(key) or default]
    listed.append(str(settings.get("packages-install-path") or "dbt_packages"))
    places = [place for path in listed if (place := rendered(path, os.environ)) is not None]
    return _files_in(folder, places) if len(places) == len(listed) else None


def _everything(folder: Path) -> Iterator[Path]:
    return _files_in(folder, ["."])


def _files_in(folder: Path, listed: Iterable[str]) -> Iterator[Path]:
    seen: set[Path] = set()
    walked: set[str] = set()
    for name in listed:
        for path in _walk(folder / name, walked):
            if path not in seen and path.is_file():
                seen.add(path)
                yield path
    for path in sorted(folder.glob("*.y*ml")):
        if path not in seen and path.is_file():
            yield path


def _walk(top: Path, walked: set[str]) -> Iterator[Path]:
    """Yield the files of a folder, whatever it is called by: two that link to each other have paths without end.

    Args:
        walked: the real paths of the folders that were seen; this adds to it.
    """
    # Packages that stand beside the project are linked to, and paths like "." hold dbt's own output.
    for place, folders, files in os.walk(top, followlinks=True):
        real = os.path.realpath(place)
        if real in walked:
            folders.clear()
            continue
        walked.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _OUTPUT)
        yield from (Path(place, file) for file in sorted(files))
