"""Roles, persons and signatures, and whether an answer to the form counts: pure functions.

A signature is for data, identified by its checksum; for other data it is void.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

# Each role has to sign, in any order, and each has to be a different person.
ROLES: dict[str, str] = {
    "data engineer": "the sources are fresh, and every test ran and passed",
    "finance": "the spot check is right",
    "manager": "the payment may be made",
}
Decision = Literal["approve", "reject"]

_ADDRESS = re.compile(r"[^\s<>()\"',;:]+@[^\s<>()\"',;:]+")


@dataclass(frozen=True)
class SignoffAnswer:
    """An answer to the form.

    Attributes:
        key: the pause that it answers, unique in its flow run.
    """

    key: str
    role: str
    who: str
    decision: Decision
    comment: str = ""


@dataclass(frozen=True)
class Signature:
    """An approval that was accepted.

    Attributes:
        at: when, in naive UTC.
        checksum: of the data that it is for.
    """

    role: str
    who: str
    at: datetime
    checksum: str
    comment: str = ""


def person(who: str) -> frozenset[str]:
    """Return what identifies a person in a name or an e-mail address.

    Two that share any of these count as one: case, spaces, accents, the order of names and what an address has after
    a + make no difference, and `ada.lovelace@…` is Ada Lovelace. A person who is refused by mistake can give the full
    name.
    """
    text = _folded(who)
    found: set[str] = set()
    for address in _ADDRESS.findall(text):
        local, _, domain = address.rpartition("@")
        local = local.partition("+")[0]
        found |= {f"{local}@{domain}", _words(local)}
    name = _words(_ADDRESS.sub(" ", text))
    return frozenset(part for part in {*found, name} if part)


def is_same_person(one: str, other: str) -> bool:
    """Return whether two names or addresses are of one person."""
    return bool(person(one) & person(other))


def valid(signatures: Iterable[Signature], checksum: str, now: datetime, lasts: timedelta) -> list[Signature]:
    """Return the signatures that are for this data and not too old, one a role and a person, the earliest first."""
    found: list[Signature] = []
    for signature in sorted(signatures, key=lambda each: each.at):
        is_for_this = signature.checksum == checksum and now - signature.at <= lasts
        if is_for_this and signature.role in ROLES and why_refused(signature.role, signature.who, found) is None:
            found.append(signature)
    return found


def missing_roles(signatures: Sequence[Signature]) -> list[str]:
    """Return the roles that have not signed."""
    signed = {signature.role for signature in signatures}
    return [role for role in ROLES if role not in signed]


def why_refused(role: str, who: str, signatures: Sequence[Signature]) -> str | None:
    """Return why a signature is refused beside these; None when it is accepted."""
    if role not in ROLES:
        return f"There is no role {role!r}: it is one of {', '.join(ROLES)}."
    if not person(who):
        return "A signature needs the name of the person who signs."
    for signature in signatures:
        if signature.role == role:
            return f"The role {role} has already been signed."
        if is_same_person(signature.who, who):
            return f"The person who signs as {role} has signed as {signature.role}: three roles are three persons."
    return None


def _folded(text: str) -> str:
    """Return a text without case, accents and invisible characters."""
    letters = unicodedata.normalize("NFKD", text)
    kept = "".join(c for c in letters if unicodedata.category(c) not in ("Mn", "Cf", "Cc") or c in "\t\n")
    return kept.casefold()


def _words(text: str) -> str:
    return " ".join(sorted(re.findall(r"[^\W_]+", text)))
