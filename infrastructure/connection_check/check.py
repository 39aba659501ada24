"""Check whether dbt can connect to a target and build there; if not, say why and what to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infrastructure.connection_check.reachability import address_of, why_unreachable
from infrastructure.passed_on import for_client
from infrastructure.profiles import Profile, make_folder, require_adapter
from infrastructure.workspace import targets_file

# Drivers try more than once, each time for tens of seconds.
CHECK_SECONDS = 120.0

# Runs dbt commands one after the other until one fails: within one Python process, or as programs.
_DBT = "import json, sys; from dbt.cli.main import dbtRunner as dbt; " + (
    "sys.exit(not all(dbt().invoke(command).success for command in json.loads(sys.argv[1])))"
)
_PROGRAM = "import json, subprocess, sys; " + (
    "sys.exit(any(subprocess.call([sys.argv[2], *command]) for command in json.loads(sys.argv[1])))"
)
# Warehouses where a connection does not prove that dbt can build in its schema.
_LOOKED_AT = ("snowflake", "bigquery")
_LOOK = Path(__file__).with_name("check_location.sql")
_NO_DATASET = re.compile(r"running operation: .*Not found: Dataset", re.IGNORECASE | re.DOTALL)


def _correct(settings: str) -> str:
    return f"Correct {settings} of this target in targets.yml, then run setup again."


_SET_SECRET = "Set its variable to the right one, then run setup again."

# By warehouse: a driver's message, its cause, and what to do; the first match counts. Those under "" are for all.
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
            "DuckDB downloads it at its first use, for which this machine needs a network.",
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
            "the server does not allow this connection: {}",
            "Add a line to the server's pg_hba.conf.",
        ),
        (r"too many (?:connections|clients)", "the server has no connection left", "Try again later."),
    ],
    "snowflake": [
        (r"Incorrect username or password", "the user or the password is wrong", _SET_SECRET),
        (r"token has expired|access token expired|390114|390318", "the token has expired", _SET_SECRET),
        (r"[Ii]nvalid OAuth access token|access token is invalid|390303", "the token is not valid", _SET_SECRET),
        (
            r"[Ii]ncorrect password|[Bb]ad decrypt",
            "the passphrase does not open the private key",
            _correct("`private_key_passphrase_env`"),
        ),
        (
            r"JWT token is invalid|[Pp]rivate key",
            "Snowflake does not accept the key pair",
            "Give the user its public key (`alter user … set rsa_public_key = …`), or correct the variable.",
        ),
        (
            r"250001.*Could not connect|250003.*[Ff]ailed to (?:connect|execute)",
            "the account's host does not answer",
            "Correct `account`, `host` and `port` in targets.yml, or check for a firewall in between.",
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
            "the account's network policy blocks this machine",
            "Have its address added to the policy, or run where it is allowed.",
        ),
    ],
    "bigquery": [
        (
            r"expired or revoked",
            "the token has expired or been revoked",
            "Sign in again for a new one (`gcloud auth`), set its variable to it and run setup again.",
        ),
        (
            r"invalid_grant|Invalid JWT Signature",
            "Google does not accept the key: it has been deleted or has expired",
            "Make a new key for the service account, set the variable to it and run setup again.",
        ),
        (
            r"refresh the access token|[Ii]nvalid authentication credentials|invalid_client|unauthorized_client",
            "the token has expired or is not valid",
            "Set its variable to a new one, or use a way to sign in that does not expire; then run setup again.",
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
            r"Access Denied: Dataset ([^\s:]+:[^\s:]+)",
            "the account may not see dataset {}, or there is none",
            "Give it the role BigQuery Data Editor there, or correct `schema` in targets.yml.",
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
            "Start the server, or correct `host` and `port` in targets.yml.",
        ),
        (
            r"timeout expired|timed out",
            "the server does not answer in time",
            "Check for a firewall or VPN in between, or correct `host` in targets.yml.",
        ),
        (
            r"permission denied|[Ii]nsufficient privileges",
            "the user lacks a privilege",
            "Grant it to the user.",
        ),
    ],
}


# How the causes above, and those of infrastructure.connection_check.reachability, say that nothing answered.
_AWAY = re.compile(r"does not answer|there is no (?:answer|host)|nothing listens")


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        cause: empty when the connection works.
        mend: what to do about the cause.
        note: a hint for the user where the connection works.
    """

    target: str
    cause: str = ""
    mend: str = ""
    note: str = ""

    @property
    def is_ok(self) -> bool:
        """Return whether dbt could connect."""
        return not self.cause

    @property
    def is_away(self) -> bool:
        """Return whether nothing answered, so that a later try may succeed; other failures are refusals."""
        return _AWAY.search(self.cause) is not None


def check(profile: Profile, timeout_seconds: float = CHECK_SECONDS) -> Check:
    """Run `dbt debug` for a profile in its own process and folder, and check the schema that dbt builds in.

    Raises:
        ConfigError: the adapter of the warehouse is not installed.
    """
    program = require_adapter(profile.warehouse, profile.target, profile.dbt)
    if unreachable := why_unreachable(profile.output):
        return Check(profile.target, *unreachable)
    make_folder(profile)
    with tempfile.TemporaryDirectory(prefix="tributary-check-") as folder:
        commands = json.dumps(_commands(profile, Path(folder)))
        child = subprocess.Popen(
            [sys.executable, "-c", *([_PROGRAM, commands, program.path] if program.path else [_DBT, commands])],
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
            address = address_of(profile.output)
            answer = f"answer from {address[0]}" if address else "answer"
            cause = f"there is no {answer} within {timeout_seconds:.0f} seconds"
            return Check(profile.target, cause, "Check for a firewall or VPN in between.")
        finally:
            _end(child)
    found = re.search(r"^(?:[\d:]+\s+)?found: (\{.*\})$", text, re.MULTILINE)
    if found:
        return judge(profile, json.loads(found[1]))
    if profile.warehouse == "bigquery" and _NO_DATASET.search(text):
        return judge(profile, {"location": None})
    if child.returncode != 0:
        return Check(profile.target, *explain(profile.warehouse, _without_secrets(profile, text)))
    return Check(profile.target)


def _commands(profile: Profile, folder: Path) -> list[list[str]]:
    """Write an empty project, and return the commands to run in it."""
    (folder / "profiles.yml").write_text(profile.profiles_yml("check"), encoding="utf-8")
    project = {"name": "connection_check", "profile": "check", "version": "1.0.0"}
    (folder / "dbt_project.yml").write_text(yaml.safe_dump(project), encoding="utf-8")
    common = ["--no-use-colors", "--target", profile.target, "--project-dir", str(folder)]
    common += ["--profiles-dir", str(folder), "--log-path", str(folder)]
    commands = [["debug", "--connection", *common]]
    if profile.warehouse in _LOOKED_AT:
        (folder / "macros").mkdir()
        shutil.copy(_LOOK, folder / "macros")
        commands.append(["run-operation", "look", *common])
    return commands


def judge(profile: Profile, found: Mapping[str, Any]) -> Check:
    """Return whether the warehouse has what the target needs.

    Args:
        found: what the macro in check_location.sql returns.
    """
    output = profile.output
    if profile.warehouse == "snowflake":
        for setting, name in (("database", "database"), ("warehouse", "virtual_warehouse")):
            if not found[setting]:
                cause = f"there is no {setting} {output[setting]}, or the role may not use it"
                return Check(profile.target, cause, _correct(f"`{name}` or `role`"))
        return Check(profile.target)
    place = f"{output['project']}.{output['schema']}"
    wanted = output.get("location")
    if not found["location"]:
        where = f"in {wanted}" if wanted else "in US, as the target has no `location`"
        note = f"there is no dataset {place} yet: the first run creates it {where}, if the account may"
        return Check(profile.target, note=note)
    if wanted and wanted.upper() != found["location"].upper():
        cause = f"dataset {place} is in location {found['location']}, not in {wanted}"
        mend = f"Set `location: {found['location']}` in {targets_file()}, or name another dataset in `schema`"
        return Check(profile.target, cause, f"{mend}; then run setup again.")
    return Check(profile.target)


def _environment(profile: Profile) -> dict[str, str]:
    # A DBT_TARGET or DBT_LOG_FORMAT of the caller would change what is tried, or what is read.
    client = for_client(os.environ, profile.output, profile.pass_env)
    inherited = {name: value for name, value in client.items() if not name.startswith("DBT_")}
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
    debug = r"the following (?:error|reason):\s+>?(.*?)\n\s*\n(?:Check your|\s*$)"
    found = re.search(debug, text, re.DOTALL) or re.search(r"while running operation: (.*)", text, re.DOTALL)
    message = re.sub(r"^(?:Database|Runtime) Error\s+", "", (found[1] if found else text).strip())
    for pattern, cause, mend in _CAUSES.get(warehouse, []) + _CAUSES[""]:
        if match := re.search(pattern, message):
            return cause.format(*match.groups()), mend
    first = next((line.strip() for line in message.splitlines() if line.strip()), "dbt printed nothing")
    return f"dbt could not connect: {first}", f"Check the target's settings in {targets_file()}."
