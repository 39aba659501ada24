"""Select the environment variables of a child process: those that it needs, and none that it could leak.

A process with many secrets starts programs that need few: git, and dbt, which runs the code of a project and its
packages and writes logs. So each gets what is on a list, and what the project looks up; nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# What any program needs: paths, the user, folders for files, language and time zone, proxies, and Python.
_SYSTEM = (
    r"PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|TEMP|TMP|XDG_\w+|TERM|COLUMNS|LINES|NO_COLOR|FORCE_COLOR|CI",
    r"LANG|LANGUAGE|LC_\w+|TZ|TZDIR|HOSTNAME|SOURCE_DATE_EPOCH",
    r"(?i:https?_proxy|all_proxy|no_proxy|ftp_proxy)",
    r"SSL_CERT_(FILE|DIR)|SSLKEYLOGFILE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|OPENSSL_CONF|OPENSSL_MODULES",
    r"LOCALDOMAIN|RES_OPTIONS|HOSTALIASES|KRB5\w+|NSS_\w+",
    # Where dbt 2 finds the drivers of the warehouses.
    r"ADBC_DRIVER_PATH",
    r"LD_LIBRARY_PATH|LD_PRELOAD|DYLD_\w+|MALLOC_\w+|OMP_NUM_THREADS|PYTHON\w*|VIRTUAL_ENV|COVERAGE_\w+",
)
# What a warehouse's client reads itself. Never an address or a key: those come with the profile.
_ADAPTERS: Mapping[str, tuple[str, ...]] = {
    "duckdb": (r"DUCKDB_\w+", r"(?i:motherduck_token)"),
    "postgres": (
        r"PG(PASSFILE|SERVICE|SERVICEFILE|SYSCONFDIR|OPTIONS|APPNAME|TZ|DATESTYLE|CLIENTENCODING|CONNECT_TIMEOUT)",
        r"PG(SSL\w+|GSS\w+|KRBSRVNAME|CHANNELBINDING|REQUIRE\w+|TARGETSESSIONATTRS|LOADBALANCEHOSTS|LOCALEDIR)",
        r"PG(MIN|MAX)PROTOCOLVERSION",
    ),
    "snowflake": (r"SNOWFLAKE_HOME", r"SF_OCSP_\w+"),
    "bigquery": (
        r"GOOGLE_(APPLICATION_CREDENTIALS|CLOUD_PROJECT|CLOUD_QUOTA_PROJECT|CLOUD_UNIVERSE_DOMAIN|API_\w+)",
        r"GCLOUD_PROJECT|CLOUDSDK_\w+|GCE_METADATA_\w+|NO_GCE_CHECK|GRPC_\w+|BIGQUERY_EMULATOR_HOST",
    ),
    "redshift": (r"AWS_\w+", r"PGSSL\w+"),
    "athena": (r"AWS_\w+",),
    "glue": (r"AWS_\w+",),
}
# A machine's own identity, for the targets that sign in with it.
_IDENTITIES = {"AWS": r"AWS_\w+", "AZURE": r"IDENTITY_\w+|MSI_\w+|AZURE_\w+", "GCP": r"GCE_METADATA_\w+"}
# A project that looks one of these up by name gets it all the same; by this, dbt's flags differ from secrets.
_DBT = r"DBT_(?!ENV_SECRET_|CLOUD_|ACCOUNT_ID|BASE_URL)(?!\w*(SECRET|TOKEN|PASSWORD|API_KEY|PRIVATE_KEY))\w+"
# The orchestrator's credentials: passed to a project that looks them up only when `pass_env` names them too.
_ORCHESTRATORS = (
    r"PREFECT_\w+|TRIBUTARY_(WEBHOOK|SOURCE_DATABASE|GIT|HISTORY|ALERT)\w*",
    r"AIRBYTE_\w*(CLIENT_ID|SECRET|TOKEN|PASSWORD)|SLACK_\w*(URL|WEBHOOK|TOKEN|SECRET)\w*|PAGERDUTY_\w+",
    r"DBTCLOUD_\w+|DBT_API_KEY|DBT_CLOUD_\w*(TOKEN|KEY)",
)


@dataclass(frozen=True)
class LookUps:
    """The variables that a dbt project looks up.

    Attributes:
        names: in full.
        prefixes: how the names begin that are put together while dbt runs.
        unknown_in: files that look up a variable whose name is not in their text.
    """

    names: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()
    unknown_in: tuple[str, ...] = ()

    def ask_for(self, name: str) -> bool:
        """Return whether the project looks a variable up."""
        return name in self.names or any(name.startswith(prefix) for prefix in self.prefixes)


@dataclass(frozen=True)
class PassedOn:
    """The environment of a dbt child.

    Attributes:
        environment: the variables.
        kept_back: names of variables that are set, that the project looks up, and that are not passed.
    """

    environment: Mapping[str, str]
    kept_back: tuple[str, ...] = ()


def for_any_program(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that every program needs: none is secret, except perhaps a proxy's address."""
    return _matching(environ, _SYSTEM)


def for_client(environ: Mapping[str, str], output: Mapping[str, Any], pass_env: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables that a warehouse's client needs.

    Args:
        output: dbt's output for the warehouse.
        pass_env: names of further variables; `*` at the end of one stands for any ending.
    """
    wanted = [*_SYSTEM, *_ADAPTERS.get(str(output.get("type")), ())]
    if identity := _IDENTITIES.get(str(output.get("workload_identity_provider")).upper()):
        wanted.append(identity)
    if output.get("type") == "postgres" and not (output.get("password") or output.get("pass")):
        # Without a password in the target, libpq's own settings apply.
        wanted.append("PGPASSWORD")
    return _matching(environ, [*wanted, *map(_pattern, pass_env)])


def for_dbt(
    environ: Mapping[str, str],
    output: Mapping[str, Any],
    pass_env: Iterable[str],
    look_ups: LookUps,
    of_others: Iterable[str] = (),
) -> PassedOn:
    """Return the variables to pass to a dbt child.

    Args:
        output: dbt's output for the target; what it looks up is passed.
        pass_env: see `for_client`.
        of_others: variables that hold secrets of other targets and services.
    """
    given = for_client(environ, output, pass_env) | _matching(environ, [_DBT])
    kept = re.compile("|".join([*_ORCHESTRATORS, *map(re.escape, of_others)]))
    in_output = look_ups_in(str(output).encode()).names
    asked = {name for name in environ if name in in_output or look_ups.ask_for(name)}
    kept_back = sorted(name for name in asked - given.keys() - in_output if kept.fullmatch(name))
    given |= {name: environ[name] for name in asked.difference(kept_back)}
    return PassedOn(given, tuple(kept_back))


_LOOK_UP = re.compile(rb"\benv_var\s*\(\s*(?:var\s*=\s*)?(?:(['\"])([^'\"]*)\1\s*([~+])?)?")


def look_ups_in(content: bytes, file: str = "") -> LookUps:
    """Return the variables that a text with Jinja in it looks up."""
    if b"env_var" not in content:
        return LookUps()
    names: set[str] = set()
    prefixes: set[str] = set()
    is_unknown = False
    for match in _LOOK_UP.finditer(content):
        name = (match[2] or b"").decode("utf-8", "replace")
        if name and match[3]:
            prefixes.add(name)
        elif name:
            names.add(name)
        else:
            is_unknown = True
    return LookUps(frozenset(names), frozenset(prefixes), (file,) if is_unknown else ())


def _pattern(name: str) -> str:
    return re.escape(name.removesuffix("*")) + (r"\w*" if name.endswith("*") else "")


def _matching(environ: Mapping[str, str], patterns: Iterable[str]) -> dict[str, str]:
    wanted = re.compile("|".join(f"(?:{pattern})" for pattern in patterns))
    return {name: value for name, value in environ.items() if wanted.fullmatch(name)}
