"""Which secrets are accepted."""

from __future__ import annotations

import pytest

from deployments.webhook.receive.keys import Keys, keys_of
from infrastructure.errors import ConfigError

OLD, NEW = "the-old-secret-0123456789", "the-new-secret-0123456789"


def test_two_secrets_are_valid_while_one_replaces_the_other() -> None:
    keys = keys_of([NEW, OLD])
    assert keys.accept(NEW)
    assert keys.accept(OLD)
    assert not keys.accept("")
    assert not keys.accept(NEW + "x")
    assert not keys_of([NEW, None]).accept(OLD)


def test_nothing_is_accepted_where_no_secret_is_known() -> None:
    assert not keys_of([None, ""])
    assert not Keys().accept("")


def test_only_digests_are_held_and_they_are_enough() -> None:
    keys = keys_of([NEW])
    assert NEW not in repr(vars(keys))
    assert Keys(keys.digests).accept(NEW)


def test_a_secret_may_be_any_text() -> None:
    secret = "schlüssel-" * 3 + "\udcff"
    assert keys_of([secret]).accept(secret)


def test_a_secret_that_could_be_guessed_is_refused_without_showing_it() -> None:
    with pytest.raises(ConfigError, match="shorter than 20") as caught:
        keys_of(["hunter2"])
    assert "hunter2" not in str(caught.value)
