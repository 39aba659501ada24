"""A request through a proxy that is not there says so, wherever it is made."""

from __future__ import annotations

import pytest

from infrastructure.proxy import through_proxy
from tests.support.proxies import no_proxy_but

URL = "http://127.0.0.1:4200/api"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, ""),
        ({"HTTPS_PROXY": "http://proxy:3128"}, ""),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "localhost,127.0.0.1"}, ""),
        ({"HTTP_PROXY": "http://proxy:3128", "no_proxy": "*"}, ""),
        (
            {"HTTP_PROXY": "http://a-user:a-password@proxy:3128/x"},
            "HTTP_PROXY sends this through the proxy http://proxy:3128:",
        ),
        (
            {"http_proxy": "proxy:1", "HTTP_PROXY": "http://other:2"},
            "http_proxy sends this through the proxy http://proxy:1:",
        ),
        ({"ALL_PROXY": "socks5://a:b@proxy:1080"}, "ALL_PROXY sends this through the proxy socks5://proxy:1080:"),
        (
            {"HTTP_PROXY": "http://one:1", "ALL_PROXY": "http://two:2"},
            "HTTP_PROXY sends this through the proxy http://one:1:",
        ),
    ],
)
def test_the_variable_that_counts_is_named_and_never_a_password(
    environ: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_proxy_but(environ, monkeypatch)
    sentence = through_proxy(URL)
    assert sentence.strip().startswith(said)
    assert bool(sentence) == bool(said)
    assert "a-password" not in sentence
    assert "a-user" not in sentence
    assert not said or sentence.endswith("NO_PROXY=127.0.0.1.")


def test_an_address_that_is_none_is_the_callers_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    no_proxy_but({"HTTP_PROXY": "http://proxy:3128"}, monkeypatch)
    assert through_proxy("http://[broken") == ""


def test_what_goes_past_the_proxy_already_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    no_proxy_but({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "example.com"}, monkeypatch)
    assert through_proxy(URL).endswith("NO_PROXY=example.com,127.0.0.1.")
