"""Which settings of a warehouse are secret, by their names: those of any dbt adapter are not known one by one."""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"[\w.\-]*(?:password|passwd|passphrase|passcode|secret|token|private_?key|private_key_id|"
    r"(?:secret|access|api)[_.\-]?key)"
    r"|(?:[\w.\-]*[_.\-])?(?:pass|pwd|pat|jwt|authorization|(?:account|master|signing)[_.\-]?key|credentials_json|"
    r"keyfile_json|request_data|connection_string|conn_str)"
    # Hadoop's for one account of Azure's storage: fs.azure.account.key.NAME.dfs.core.windows.net.
    r"|[\w.\-]*\.(?:account\.key|client\.secret|sas\.fixed\.token)\.[\w.\-]+",
    re.IGNORECASE,
)
# dbt-trino's name for the path of a key.
_PATHS = {"client_private_key"}

PRIVATE_KEY = "PRIVATE KEY-----"
ADDRESS_WITH_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@|[?&](?:\w*token|password|secret)=", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Return whether a setting of this name holds a secret."""
    return name not in _PATHS and _SECRET.fullmatch(name) is not None
