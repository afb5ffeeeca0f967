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
        ("valkey://u@h:7000/2", Address("h", 7000, db=2, username="u")),
        ("VALKEYS://:p@H", Address("h", password="p", tls=True)),
        ("redis://h?ssl=false&socket_keepalive=True&retry_on_timeout=1&encoding=utf-8&decode_responses=yes&protocol=2", Address("h")),
        ("rediss://h?ssl=true&ssl_cert_reqs=required&ssl_check_hostname=true&ssl_min_version=TLSv1.2", Address("h", tls=True)),
        ("rediss://h?ssl_cert_reqs=CERT_REQUIRED&ssl_min_version=771", Address("h", tls=True)),
        ("redis://h?username=u&password=p%26w&db=4", Address("h", db=4, username="u", password="p&w")),
        ("valkeys+sentinel://h/shop?ssl_cert_reqs=required", Address("", 0, tls=True, sentinels=Sentinels("shop", (("h", 26379),)))),
        ("Redis+Sentinel://h/shop", Address("", 0, sentinels=Sentinels("shop", (("h", 26379),)))),
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
        ("redis://h?connection_class=secret", "options that statemq does not know: connection_class"),
        ("redis://h/first?db=1", "is no Redis URL"),
        ("redis://h?db=-1", "is no Redis URL"),
        ("valkey+unix:///x", "is no Redis URL"),
        (
            "rediss://h?ssl_cert_reqs=none",
            "gives ssl_cert_reqs a value that statemq does not know, only required is taken: certificates are always checked",
        ),
        (
            "rediss://h?ssl_cert_reqs=required&ssl_cert_reqs=secret",
            "gives ssl_cert_reqs a value that statemq does not know, only required is taken",
        ),
        ("rediss://h?ssl_cert_reqs=", "gives ssl_cert_reqs a value that statemq does not know, only required is taken"),
        ("valkeys://h?ssl_cert_reqs=CERT_OPTIONAL", "gives ssl_cert_reqs a value that statemq does not know, only required is taken"),
        (
            "rediss://h?ssl_check_hostname=false",
            "gives ssl_check_hostname a value that statemq does not know, only true is taken: else any other host's certificate would do",
        ),
        (
            "rediss://h?ssl_min_version=770",
            "gives ssl_min_version a value that statemq does not know, only TLSv1.2 is taken: older ones are broken",
        ),
        ("rediss://h?ssl=false", "gives ssl a value that statemq does not know, only true is taken: rediss:// means TLS"),
        ("rediss+sentinel://h/shop?ssl_cert_reqs=none", "gives ssl_cert_reqs a value that statemq does not know, only required is taken"),
        ("redis://h?ssl=true", "the option ssl, but means a connection without TLS; write rediss://"),
        ("redis://h?ssl_cert_reqs=required", "the option ssl_cert_reqs, but means a connection without TLS"),
        ("redis://h?ssl_ca_certs=/ca.pem", "the option ssl_ca_certs, but means a connection without TLS"),
        ("redis://h?protocol=3", "gives protocol a value that statemq does not know, only 2 is taken: RESP2 is what is spoken"),
        ("redis://h?socket_timeout=3", "the option socket_timeout, which is none here: give a time-out to the client"),
        ("redis://h?max_connections=3", "the option max_connections, which is none here: a client has one connection"),
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
