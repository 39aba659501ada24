"""The valid secrets of senders: the current one and, while it is being changed, the previous one."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from infrastructure.errors import ConfigError

# Too long to guess within any rate limit; `python -c "import secrets; print(secrets.token_urlsafe(32))"` has 43.
_MIN_LENGTH = 20


class Keys:
    """Compare a sender's secret with the valid ones.

    Only digests are stored: they have one length, so that a comparison reveals nothing, and they can be saved for when
    the secrets themselves can't be read.
    """

    def __init__(self, digests: Iterable[str] = ()) -> None:
        self.digests = tuple(digests)

    def __bool__(self) -> bool:
        return bool(self.digests)

    def accept(self, shown: str) -> bool:
        """Return whether this is one of the secrets, in constant time."""
        digest = _digest(shown)
        # No short cut: every secret is compared.
        return sum([hmac.compare_digest(digest, valid) for valid in self.digests]) > 0


def keys_of(secrets: Iterable[str | None]) -> Keys:
    """Return the keys for these secrets; None is left out.

    Raises:
        ConfigError: one is so short that it could be guessed.
    """
    given = [secret for secret in secrets if secret]
    if any(len(secret) < _MIN_LENGTH for secret in given):
        raise ConfigError(
            f"A secret of the webhook is shorter than {_MIN_LENGTH} characters. Make one with: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return Keys(_digest(secret) for secret in given)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
