"""Redis URLs: what they name, and what is said of one that names nothing."""

from __future__ import annotations

import pytest

from statemq.errors import UsageError
from statemq.store.address import Address, Sentinels, parse


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://", Address()),
        ("redis://[::1]:7000/2", Address("::1", 7000, db=2)),
        ("rediss://u:p%40w@h?ssl_ca_certs=/ca.pem", Address("h", username="u", password="p@w", tls=True, ca_certs="/ca.pem")),
        ("unix:///run/redis.sock?db=3", Address(path="/run/redis.sock", db=3)),
        ("redis+sentinel://h/shop", Address("", 0, sentinels=Sentinels("shop", (("h", 26379),)))),
        (
            "rediss+sentinel://u:p%2Fw@h1:1,[::1]:2,h3/my%20shop/4?sentinel_username=s&sentinel_password=x%26y&ssl_ca_certs=/ca.pem",
            Address(
                "", 0, db=4, username="u", password="p/w", tls=True, ca_certs="/ca.pem",
                sentinels=Sentinels("my shop", (("h1", 1), ("::1", 2), ("h3", 26379)), "s", "x&y"),
            ),
        ),
    ],
)  # fmt: skip
def test_what_a_url_names(url: str, address: Address) -> None:
    assert parse(url) == address


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://[::1]:7000/2", "redis://[::1]:7000/2"),
        ("rediss://user:secret@h", "rediss://h:6379"),
        ("redis+sentinel://user:secret@h1:1,[::1]/shop/2?sentinel_password=secret", "redis+sentinel://h1:1,[::1]:26379/shop/2"),
    ],
)
def test_it_is_said_without_its_secrets(url: str, said: str) -> None:
    assert str(parse(url)) == said


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("localhost:6379", "is no Redis URL"),
        ("redis://h:port", "is no Redis URL"),
        ("redis://h?what=1", "options that statemq does not know: what"),
        ("redis+sentinel://h1,h2", "names no sentinels and service"),
        ("redis+sentinel:///shop", "names no sentinels and service"),
        ("redis+sentinel://h1,,h2/shop", "names no sentinels and service"),
        ("redis+sentinel://user:secret@h:port/shop", '"h:port/shop" names no sentinels and service'),
        ("redis+sentinel://user:secret@h/shop/first", '"h/shop/first" is no Redis URL'),
        ("redis+sentinel://h/shop?what=1", '"redis\\+sentinel://h/shop" has options that statemq does not know: what'),
    ],
)
def test_what_names_nothing_is_refused_without_its_secrets(url: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as error:
        parse(url)
    assert "secret" not in str(error.value)
