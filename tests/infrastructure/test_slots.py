"""When a slot that nobody gives back may be freed."""

from __future__ import annotations

from infrastructure.server.slots import START_TERMS, Silence


def test_a_slot_is_dead_when_it_has_shown_one_sign_for_longer_than_a_lease_lasts() -> None:
    silence = Silence(60.0)
    assert not silence.is_over("a", 100.0)
    assert not silence.is_over("a", 160.0)
    assert silence.is_over("a", 160.1)


def test_holders_that_come_and_go_are_not_silent_and_neither_is_one_that_is_renewed() -> None:
    silence = Silence(60.0)
    assert not any(silence.is_over(sign, 50.0 * sign) for sign in range(10))


def test_a_slot_without_a_sign_is_given_as_much_time() -> None:
    silence = Silence(60.0)
    assert not silence.is_over(None, 0.0)
    assert silence.is_over(None, 61.0)


def test_silence_while_the_server_was_away_counts_for_nothing() -> None:
    silence = Silence(60.0)
    silence.is_over("a", 0.0)
    silence.begin_anew()
    assert not silence.is_over("a", 61.0)


def test_what_a_starter_begins_is_over_before_its_lease_is() -> None:
    assert START_TERMS.proven + 30.0 < START_TERMS.lease
    assert 2 * START_TERMS.renew < START_TERMS.proven
