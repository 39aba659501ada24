"""Try whether dbt can connect to a target, and say in one sentence why not and what to do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

from infrastructure.profiles import Profile, make_folder, require_adapter

# Drivers try more than once, each time for tens of seconds.
CHECK_SECONDS = 120.0

# What the `dbt` command does, without looking for it on the path.
_DBT = "from dbt.cli.main import cli; cli()"


def _correct(settings: str) -> str:
    return f"Correct {settings} of this target in infrastructure/targets.yml, then run setup again."


_SET_SECRET = "Set its variable to the right one, then run setup again."

# What a driver says, the cause, and what to do; the first match counts. Under "" is what any driver says.
_CAUSES: dict[str, list[tuple[str, str, str]]] = {
    "duckdb": [
        (
            r"Could not set lock on file",
            "another process has the database file open",
            "End that process, then try again.",
        ),
        (r'Cannot open file "(.+?)"', "the file {} cannot be opened", _correct("`path`")),
        (
            r"[Ee]xtension \W?(\w+)\W",
            "the DuckDB extension {} cannot be loaded",
            "DuckDB downloads it when it is first used, so that this machine needs the network then.",
        ),
    ],
    "postgres": [
        (r'password authentication failed for user "(.+?)"', "the password of user {} is wrong", _SET_SECRET),
        (r"no password supplied", "the server wants a password", _correct("`password_env`")),
        (r'database "(.+?)" does not exist', "there is no database {}", _correct("`dbname`")),
        (r'role "(.+?)" does not exist', "there is no user or role {}", _correct("`user` or `role`")),
        (r"server does not support SSL", "the server does not speak SSL", _correct("`sslmode`")),
        (
            r"no pg_hba.conf entry for (.+)",
            "the server lets nobody in this way: {}",
            "Add a line to the server's pg_hba.conf.",
        ),
        (r"too many (?:connections|clients)", "the server has no connection left", "Try again later."),
    ],
    "snowflake": [
        (r"Incorrect username or password", "the user or the password is wrong", _SET_SECRET),
        (
            r"JWT token is invalid|[Pp]rivate key",
            "Snowflake does not accept the key pair",
            "Give the user its public key (`alter user … set rsa_public_key = …`), or correct the variable.",
        ),
        (r"JWT token has expired|390114|390318", "the token has expired", _SET_SECRET),
        (
            r"250001.*Could not connect|250003.*[Ff]ailed to (?:connect|execute)",
            "the account's host does not answer",
            "Correct `account`, `host` and `port` in infrastructure/targets.yml, or look for a firewall in between.",
        ),
        (r"404 Not Found|290404", "there is no such account", _correct("`account`")),
        (r"[Rr]ole '(\S+?)'", "the user cannot take role {}", _correct("`role`")),
        (
            r"[Dd]atabase '(\S+?)' does not exist",
            "there is no database {}, or the role may not see it",
            _correct("`database` or `role`"),
        ),
        (
            r"[Ww]arehouse '(\S+?)'",
            "the role cannot use warehouse {}",
            _correct("`virtual_warehouse` or `role`"),
        ),
        (
            r"IP (?:address )?\S+ is not allowed",
            "the account's network policy keeps this machine out",
            "Have its address added to the policy, or run where it is allowed.",
        ),
    ],
    "bigquery": [
        (
            r"invalid_grant|Invalid JWT Signature",
            "Google does not accept the key: it has been deleted or has expired",
            "Make a new key for the service account, set the variable to it and run setup again.",
        ),
        (
            r"default credentials were not found",
            "there are no application default credentials on this machine",
            "Run `gcloud auth application-default login`, or run where a service account is attached.",
        ),
        (r"Not found: Project (\S+)", "there is no project {}", _correct("`project`")),
        (
            r"Not found: Dataset (\S+) was not found in location (\S+)",
            "there is no dataset {} in location {}",
            _correct("`schema` or `location`"),
        ),
        (r"Not found: Dataset (\S+)", "there is no dataset {} there", _correct("`schema` or `location`")),
        (
            r"[Bb]illing has not been enabled",
            "the project has no billing account",
            _correct("`project` or `execution_project`"),
        ),
        (
            r"iam\.serviceAccounts?\.?[gG]etAccessToken|roles/iam\.serviceAccountTokenCreator",
            "the account may not act as the service account of `impersonate_service_account`",
            "Give it the role Service Account Token Creator on that service account.",
        ),
        (
            r"Access Denied",
            "the account may not run queries in this project",
            "Give it the roles BigQuery Data Editor and BigQuery User.",
        ),
    ],
    "": [
        (r'could not translate host name "(.+?)"', "there is no host {}", _correct("`host`")),
        (r"Failed to resolve '(.+?)'", "there is no host {}", _correct("`host` or `account`")),
        (
            r"Connection refused",
            "nothing listens at that host and port",
            "Start the server, or correct `host` and `port` in infrastructure/targets.yml.",
        ),
        (
            r"timeout expired|timed out",
            "the server does not answer in time",
            "Look for a firewall or VPN in between, or correct `host` in infrastructure/targets.yml.",
        ),
        (
            r"permission denied|[Ii]nsufficient privileges",
            "the user lacks a privilege",
            "Grant it to the user.",
        ),
    ],
}


@dataclass(frozen=True)
class Check:
    """The outcome of one try.

    Attributes:
        cause: empty when the connection works.
        mend: what to do about the cause.
    """

    target: str
    cause: str = ""
    mend: str = ""

    @property
    def is_ok(self) -> bool:
        """Tell whether dbt could connect."""
        return not self.cause


def check(profile: Profile, timeout_seconds: float = CHECK_SECONDS) -> Check:
    """Run `dbt debug` for a profile in a process and a folder of its own.

    Raises:
        ConfigError: the adapter of the warehouse is not installed.
    """
    require_adapter(profile.warehouse, profile.target)
    make_folder(profile)
    with tempfile.TemporaryDirectory(prefix="tributary-check-") as folder:
        place = Path(folder)
        (place / "profiles.yml").write_text(profile.profiles_yml("check"), encoding="utf-8")
        project = {"name": "connection_check", "profile": "check", "version": "1.0.0"}
        (place / "dbt_project.yml").write_text(yaml.safe_dump(project), encoding="utf-8")
        command = [sys.executable, "-c", _DBT, "debug", "--connection", "--no-use-colors"]
        command += ["--target", profile.target, "--project-dir", folder, "--profiles-dir", folder]
        command += ["--log-path", folder]
        child = subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(profile),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            text, _ = child.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            cause = f"there is no answer within {timeout_seconds:.0f} seconds"
            return Check(profile.target, cause, "Look for a firewall or VPN between here and there.")
        finally:
            _end(child)
    if child.returncode == 0:
        return Check(profile.target)
    return Check(profile.target, *explain(profile.warehouse, _without_secrets(profile, text)))


def _environment(profile: Profile) -> dict[str, str]:
    # A DBT_TARGET or DBT_LOG_FORMAT of the caller would change what is tried, or what is read.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DBT_")}
    return inherited | profile.child_environment() | {"DBT_SEND_ANONYMOUS_USAGE_STATS": "false"}


def _end(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def _without_secrets(profile: Profile, text: str) -> str:
    for secret in profile.secrets.values():
        text = text.replace(secret, "*****")
    return text


def explain(warehouse: str, text: str) -> tuple[str, str]:
    """Return the cause of a failed `dbt debug` and what to do about it.

    Args:
        warehouse: dbt's name for the kind of warehouse.
        text: what dbt printed.
    """
    quoted = r"the following (?:error|reason):\s+>?(.*?)\n\s*\n(?:Check your|\s*$)"
    found = re.search(quoted, text, re.DOTALL)
    message = re.sub(r"^(?:Database|Runtime) Error\s+", "", (found[1] if found else text).strip())
    for pattern, cause, mend in _CAUSES.get(warehouse, []) + _CAUSES[""]:
        if match := re.search(pattern, message):
            return cause.format(*match.groups()), mend
    first = next((line.strip() for line in message.splitlines() if line.strip()), "dbt said nothing")
    return f"dbt could not connect: {first}", "Compare the target's settings in infrastructure/targets.yml."
