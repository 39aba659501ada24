"""Who counts as one person, and which signatures count: without a server."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from flows.runbook.payroll.signoff import ROLES, Signature, is_same_person, missing_roles, valid, why_refused

AT = datetime(2026, 3, 1, 12)
DAY = timedelta(hours=24)


def signed(role: str, who: str, minutes: int = 0, checksum: str = "data") -> Signature:
    return Signature(role, who, AT + timedelta(minutes=minutes), checksum)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Ada Lovelace", "  ada   LOVELACE "),
        ("Ada Lovelace", "Lovelace, Ada"),
        ("Ada Lovelace", "Ada\u200b Lovelace"),
        ("José Álvarez", "jose alvarez"),
        ("ada@example.org", "Ada+payroll@Example.org"),
        ("ada.lovelace@example.org", "Ada Lovelace"),
        ("Ada Lovelace <ada.l@example.org>", "ada.l@example.org"),
        ("\N{FULLWIDTH LATIN CAPITAL LETTER A}da", "ada"),
    ],
)
def test_one_person_in_two_spellings_is_one_person(one: str, other: str) -> None:
    assert is_same_person(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Ada Lovelace", "Ada Byron"), ("ada@example.org", "bea@example.org"), ("Li Wei", "Li Wen"), ("", "")],
)
def test_two_persons_are_two_persons(one: str, other: str) -> None:
    assert not is_same_person(one, other)


def test_nobody_signs_for_two_roles_and_no_role_is_signed_twice() -> None:
    before = [signed("finance", "Ada Lovelace")]
    assert why_refused("manager", "lovelace ADA", before) == (
        "The person who signs as manager has signed as finance: three roles are three persons."
    )
    assert why_refused("finance", "Grace Hopper", before) == "The role finance has already been signed."
    assert why_refused("director", "Grace Hopper", before) == (
        "There is no role 'director': it is one of data engineer, finance, manager."
    )
    assert why_refused("manager", " \u200b ", before) == "A signature needs the name of the person who signs."
    assert why_refused("manager", "Grace Hopper", before) is None


def test_only_signatures_of_this_data_that_have_not_expired_count() -> None:
    found = valid(
        [
            signed("manager", "Mary Jackson", checksum="other data"),
            signed("finance", "Ada Lovelace", minutes=-24 * 60 - 1),
            signed("data engineer", "Grace Hopper", minutes=2),
            # The same person once more, and a second one for a role that has signed.
            signed("manager", "grace hopper", minutes=3),
            signed("data engineer", "Katherine Johnson", minutes=4),
        ],
        "data",
        AT + timedelta(seconds=30),
        DAY,
    )
    assert [(each.role, each.who) for each in found] == [("data engineer", "Grace Hopper")]
    assert missing_roles(found) == ["finance", "manager"]
    assert missing_roles([signed(role, role) for role in ROLES]) == []
