"""The files of a dbt project as fingerprints: proof that nothing of it has changed, without a parse."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

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
_LOOKUP = re.compile(rb"\benv_var\s*\(\s*(?:(['\"])([^'\"]+)\1)?")


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
    is_provable = "{{" not in str({key: settings.get(key) for key in [*_FOLDERS, "packages-install-path"]})
    for path in _paths(folder, settings):
        content = path.read_bytes()
        digests[str(path)] = hashlib.sha256(content).hexdigest()
        for match in _LOOKUP.finditer(content) if b"env_var" in content else ():
            if match[2]:
                names.add(match[2].decode("utf-8", "replace"))
            else:
                is_provable = False
    whole = hashlib.sha256()
    for name, digest in sorted(digests.items()):
        whole.update(f"{os.path.relpath(name, folder)}\0{digest}\0".encode())
    return ProjectFiles(whole.hexdigest(), digests, tuple(sorted(names)), is_provable)


def variables_by_package(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return the `vars:` of a project and of its packages, by the name of each."""
    found: dict[str, Mapping[str, Any]] = {}
    installed = folder / str(project_settings(folder).get("packages-install-path") or "dbt_packages")
    packages = sorted(installed.iterdir()) if installed.is_dir() else []
    for place in [*packages, folder]:
        settings = project_settings(place)
        if isinstance(settings.get("name"), str):
            found[settings["name"]] = settings.get("vars") or {}
    return found


def project_settings(folder: Path) -> dict[str, Any]:
    """Return what dbt_project.yml says; empty where it can't be read, which dbt itself reports."""
    try:
        document = yaml.safe_load((folder / "dbt_project.yml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return cast(dict[str, Any], document) if isinstance(document, dict) else {}


def _paths(folder: Path, settings: Mapping[str, Any]) -> Iterator[Path]:
    listed = [str(path) for key, default in _FOLDERS.items() for path in settings.get(key) or default]
    listed.append(str(settings.get("packages-install-path") or "dbt_packages"))
    seen: set[Path] = set()
    for name in listed:
        # Packages that stand beside the project are linked to, and paths like "." hold dbt's own output.
        for place, folders, files in os.walk(folder / name, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _OUTPUT)
            for file in sorted(files):
                path = Path(place, file)
                if path not in seen and path.is_file():
                    seen.add(path)
                    yield path
    for path in sorted(folder.glob("*.y*ml")):
        if path not in seen and path.is_file():
            yield path
