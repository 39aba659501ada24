"""Which settings of a warehouse are secret, by their names: those of any dbt adapter are not known one by one."""

from __future__ import annotations

import re

_SECRET = re.compile(
    r"(?:\w*[_\-.])?(?:password|passwd|pass|pwd|passphrase|secret|token|jwt|authorization|credentials_json|keyfile_json|"
    r"(?:secret|secret_access|api|account|master|signing)[_-]?key|private_key|private_key_id|request_data|"
    r"connection_string|conn_str)",
    re.IGNORECASE,
)
# dbt-trino's name for the path of a key.
_PATHS = {"client_private_key"}

ADDRESS_WITH_PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@|[?&](?:\w*token|password|secret)=", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Return whether a setting of this name holds a secret."""
    return name not in _PATHS and _SECRET.fullmatch(name) is not None
