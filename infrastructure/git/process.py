"""Run git without prompts, and so that nothing in a repository can make it run another program."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

from infrastructure.passed_on import for_any_program

URL_SCHEMES = ("http", "https", "ssh", "file")

# A repository's own configuration can name programs to run, and a user's can change what is counted.
SAFE_OPTIONS = (
    "--no-pager",
    *("-c", "core.fsmonitor=false"),
    *("-c", f"core.hooksPath={os.devnull}"),
    # The repository was named by a person; what this setting guards against is switched off above.
    *("-c", "safe.bareRepository=all"),
    *("-c", "log.showSignature=false"),
    *("-c", "log.showRoot=true"),
    *("-c", "diff.relative=false"),
    *("-c", "diff.submodule=short"),
    *("-c", "i18n.logOutputEncoding=UTF-8"),
    *("-c", "color.ui=false"),
)
NETWORK_OPTIONS = (
    *("-c", "http.lowSpeedLimit=1000"),
    *("-c", "http.lowSpeedTime=60"),
    *("-c", "gc.autoDetach=false"),
)
# Of git's variables only those that say how to reach a server, or contain the user's own settings, are passed
# on: inside a git hook, GIT_DIR and its like would point every command at the hook's repository.
KEPT_VARIABLES = re.compile(
    r"GIT_(EXEC_PATH|ASKPASS|SSH\w*|SSL_\w+|PROXY_\w+|HTTP_\w+|CEILING_DIRECTORIES"
    r"|CONFIG_(GLOBAL|COUNT|KEY_\d+|VALUE_\d+))"
)
# For the user's own ssh and credential helpers.
SIGN_IN_VARIABLES = re.compile(
    r"SSH_AUTH_SOCK|SSH_AGENT_PID|SSH_ASKPASS\w*|DISPLAY|WAYLAND_DISPLAY|DBUS_SESSION_BUS_ADDRESS|GNUPGHOME|GCM_\w+"
    r"|(GH|GITHUB|GITLAB|GITEA|BITBUCKET)_(TOKEN|HOST)|CI_JOB_TOKEN|SYSTEM_ACCESSTOKEN"
)
CREDENTIAL_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n"'
    ' "$TRIBUTARY_GIT_USERNAME" "$TRIBUTARY_GIT_PASSWORD"; }; f'
)


@dataclass(frozen=True)
class Location:
    """Where a repository is, as parsed from an argument.

    Attributes:
        address: the path, or the URL without what must stay secret; safe to print and to store.
        is_url: whether it has to be fetched.
        username, password: what an http URL held, None when it held none.
    """

    address: str
    is_url: bool
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Location({self.address!r}, is_url={self.is_url})"


class GitFailed(Exception):
    """Carry the error output of git to the caller, which knows what it means."""

    def __init__(self, stderr: str) -> None:
        super().__init__(stderr)
        fatal = [line for line in stderr.splitlines() if line.startswith(("fatal:", "error:", "remote:"))]
        self.message = " ".join((fatal or stderr.splitlines() or ["git gave no reason"])[-2:])


def git_environment(environ: Mapping[str, str], location: Location | None = None) -> dict[str, str]:
    """Return git's environment variables; git may use the network only for the given location."""
    kept = for_any_program(environ) | {k: v for k, v in environ.items() if KEPT_VARIABLES.fullmatch(k)}
    if location:
        kept |= {k: v for k, v in environ.items() if SIGN_IN_VARIABLES.fullmatch(k)}
    kept |= {
        "GIT_TERMINAL_PROMPT": "0",
        "SSH_ASKPASS_REQUIRE": "never",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_LAZY_FETCH": "1",
        "LC_ALL": "C",
        "LANGUAGE": "C",
        # "none" is no protocol, so that a partial clone cannot make git call a server.
        "GIT_ALLOW_PROTOCOL": ":".join(URL_SCHEMES) if location else "none",
    }
    if location is None:
        # What is counted does not depend on the machine. Fetching does read the system's settings, because
        # proxies, certificates and credential helpers are configured there.
        return kept | {"GIT_CONFIG_NOSYSTEM": "1"}
    if location.username is None:
        return kept
    # Credentials reach git by a helper that reads the environment: a URL with them would show in the list of
    # processes and in the clone's config file. Naming the host keeps them from any other one.
    parts = urlsplit(location.address)
    setting = f"credential.{parts.scheme}://{parts.netloc}.helper"
    given = kept.get("GIT_CONFIG_COUNT", "")
    count = int(given) if given.isdigit() else 0
    return kept | {
        "TRIBUTARY_GIT_USERNAME": location.username,
        "TRIBUTARY_GIT_PASSWORD": location.password or "",
        "GIT_CONFIG_COUNT": str(count + 2),
        f"GIT_CONFIG_KEY_{count}": setting,
        f"GIT_CONFIG_VALUE_{count}": "",
        f"GIT_CONFIG_KEY_{count + 1}": setting,
        f"GIT_CONFIG_VALUE_{count + 1}": CREDENTIAL_HELPER,
    }


def git_command(arguments: Sequence[str], folder: Path | None = None) -> list[str]:
    """Return the argv of a git command."""
    return ["git", *(["-C", str(folder)] if folder else []), *SAFE_OPTIONS, *arguments]


def run_git(arguments: Sequence[str], folder: Path | None = None, location: Location | None = None) -> str:
    """Run a short git command and return its output; it may use the network only with a location.

    Raises:
        GitFailed: git ended with an error.
    """
    done = subprocess.run(
        git_command([*(NETWORK_OPTIONS if location else ()), *arguments], folder),
        env=git_environment(os.environ, location),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        # Away from the terminal, where ssh would ask for a password and wait for ever.
        start_new_session=True,
    )
    if done.returncode:
        raise GitFailed(_redact(done.stderr.decode("utf-8", errors="replace"), location))
    return done.stdout.decode("utf-8", errors="replace")


def _redact(text: str, location: Location | None) -> str:
    for secret in (location.password, location.username) if location else ():
        if secret:
            text = text.replace(secret, "***").replace(quote(secret, safe=""), "***")
    return text
