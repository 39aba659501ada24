"""Read job files, as .tfvars or as YAML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from deployments.dbt_cloud.files.config import TFVARS, YAML, Config, check_jobs
from deployments.dbt_cloud.files.job_yaml import read_job_yaml
from deployments.dbt_cloud.files.tfvars import read_tfvars
from infrastructure.errors import ConfigError

_YAML_SUFFIXES = (".yml", ".yaml")


def load_config(paths: Sequence[str], variables: Mapping[str, Any] | None = None) -> Config:
    """Read files of one form; a folder or a pattern stands for the files in it.

    Args:
        variables: for the templates of dbt-jobs-as-code.

    Raises:
        ConfigError: a file is missing or wrong.
    """
    files = _files(paths)
    forms = {YAML if path.suffix in _YAML_SUFFIXES else TFVARS for path in files}
    if len(forms) != 1:
        raise ConfigError("--config takes .tfvars files or YAML files, not both at once.")
    config = read_job_yaml(files, variables or {}) if forms == {YAML} else read_tfvars(files)
    check_jobs(config.jobs)
    return config


def _files(paths: Sequence[str]) -> list[Path]:
    if not paths:
        raise ConfigError("No file was given: --config env_file/dev_env.tfvars, or a YAML file of dbt-jobs-as-code.")
    files: list[Path] = []
    for text in paths:
        path = Path(text)
        if path.is_dir():
            found = sorted(it for it in path.iterdir() if it.suffix in (".tfvars", *_YAML_SUFFIXES))
        elif path.is_file():
            found = [path]
        else:
            found = sorted(Path(it) for it in glob(text, recursive=True))
        if not found:
            raise ConfigError(f"There is no file {text}.")
        files += found
    return list(dict.fromkeys(files))
