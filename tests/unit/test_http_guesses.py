"""Tokens that guesses try are refused; wrong ones are logged, and answered slowly."""

from __future__ import annotations

import time

import pytest

from statemq.config import HttpSettings
from statemq.errors import UsageError
from statemq.http.access import ROLES, Tokens
from statemq.http.guessable import is_guessable
from statemq.http.guesses import ADDRESSES, LONGEST_S, SAID_EVERY_S, Guesses, network
from tests.unit.http_fakes import Edge, problem

TOKEN = "correct-horse-battery"

WEAK = [
    "password",
    "P@ssw0rd",
    "passw0rd1",
    "password123",
    "Password!!",
    "12345678",
    "87654321",
    "0123456789",
    "aaaaaaaa",
    "aaaaaaaaaaaaaaaaaaaaaaaa",
    "abcabcabc",
    "abcdefgh",
    "ABCDEFGH",
    "secretsecret",
    "changeme",
    "changeme!",
    "ChangeMe1",
    "qwertyuiop",
    "asdfghjkl",
    "1qaz2wsx",
    "admin123",
    "letmein1",
    "test1234",
    "statemq-token",
    "my-secret-token",
    "token123",
    "s3cr3t-t0ken",
    "11112222",
    "zxcvbnm1",
    "--------",
    "########",
    "a-a-a-a-a-a-a-a",
]


@pytest.mark.parametrize("token", WEAK)
def test_weak_tokens_are_refused_wherever_they_stand(token: str) -> None:
    with pytest.raises(UsageError, match=r"easy to guess .* head -c 24 /dev/urandom") as refused:
        Tokens({token: ROLES})
    assert token not in str(refused.value)
    if not token.startswith("#"):
        with pytest.raises(UsageError, match="easy to guess"):
            Tokens.parse(f"{TOKEN} read\n{token} submit")


@pytest.mark.parametrize("token", [TOKEN, "S3cr3tAB", "x7Kp-2mQ", "9f86d081884c7d65", "tPzhJ9Yw0bqMZr5sN1cLxQ==", "reader-0000"])
def test_others_are_taken(token: str) -> None:
    assert not is_guessable(token)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_wrong_tokens_of_an_address_are_answered_one_after_the_other(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    guesses = Guesses(0.25, clock)
    assert [guesses.note("192.0.2.1") for _ in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert guesses.note("192.0.2.2") == 0.25, "another address does not wait for it"
    assert max(guesses.note("192.0.2.1") for _ in range(1000)) == LONGEST_S
    clock.now = LONGEST_S
    assert guesses.note("192.0.2.1") == 0.25
    assert [record.getMessage() for record in caplog.records] == ["a wrong token from 192.0.2.1", "a wrong token from 192.0.2.2"]
    clock.now = SAID_EVERY_S
    guesses.note("192.0.2.1")
    assert caplog.records[-1].getMessage() == "a wrong token from 192.0.2.1 (1005 of them since the last such line)"


def test_addresses_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    guesses = Guesses(0.25, clock)
    for number in range(2 * ADDRESSES):
        guesses.note(f"10.0.{number // 256}.{number % 256}")
    assert len(guesses._senders) <= ADDRESSES + 1
    assert len(caplog.records) <= ADDRESSES + 1
    clock.now = 60
    guesses.note("192.0.2.1")
    assert len(guesses._senders) == 1


def test_an_address_of_ipv6_is_its_network() -> None:
    assert network("2001:db8::1") == network("2001:db8::ffff") == "2001:db8::/64"
    assert network("2001:db8:0:1::1") != network("2001:db8::1")
    assert network("::ffff:192.0.2.1") == "192.0.2.1"
    assert network("fe80::1%eth0") == "fe80::/64"
    assert network("") == "an unknown address"


def test_a_wrong_token_is_slow_and_in_the_log_and_a_right_one_is_not(caplog: pytest.LogCaptureFixture) -> None:
    edge = Edge(tokens=Tokens({TOKEN: ROLES}), settings=HttpSettings(wrong_token_s=0.4))
    began_s = time.monotonic()
    problem(edge.get("/-/machines", headers={"Authorization": "Bearer not-the-right-one"}), 401, "token")
    assert time.monotonic() - began_s >= 0.4
    (record,) = caplog.records
    assert "a wrong token from" in record.getMessage() and "not-the" not in record.getMessage()
    edge.access.guesses = Guesses(1e9)
    assert edge.get("/-/machines", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
    problem(edge.get("/-/machines"), 401, "token")
    assert edge.get("/-/health", headers={"Authorization": "Bearer not-the-right-one"}).status_code == 200, "a probe is not held up"
    assert len(caplog.records) == 1, "who sends none does not guess"
