"""Names and keys."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemq import Machine, transition
from statemq.command import check_key
from statemq.declaration.declare import snake_case
from statemq.errors import InvalidKey
from statemq.examples.switch import Switch

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("Resource", "resource"),
        ("PaymentOrder", "payment_order"),
        ("HTTPServer", "http_server"),
        ("V2Api", "v2_api"),
        ("X", "x"),
        ("_P", "_p"),
    ],
)
def test_a_machine_is_named_after_its_class(name: str, snake: str) -> None:
    assert snake_case(name) == snake


def test_names_may_be_given() -> None:
    class Thing(Machine, initial="a", name="things"):
        @transition(source="a", name="setUp")
        def set_up(self) -> None: ...

    assert (Thing.spec.name, list(Thing.spec.transitions), Thing.set_up("k").transition) == ("things", ["setUp"], "setUp")


@pytest.mark.parametrize("key", ["a", "a/b", "{x}", "*?[", "-", " ", "\n", "\0", "é" * 256, "x" * 512, "🙂"])
def test_any_text_may_be_a_key(key: str) -> None:
    assert check_key(key) == key
    assert Switch.flip(key).key == key


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "a key cannot be empty"),
        ("x" * 513, "a key has at most 512 bytes in UTF-8; this one has 513"),
        ("é" * 257, "a key has at most 512 bytes in UTF-8; this one has 514"),
        ("a\udc80", "a key must be valid Unicode; this one has a lone surrogate at position 1"),
        (7, "a key is a text, not int"),
        (b"a", "a key is a text, not bytes"),
        (None, "a key is a text, not NoneType"),
    ],
)
def test_what_cannot_be_a_key(key: Any, why: str) -> None:
    with pytest.raises(InvalidKey) as caught:
        Switch.flip(key)
    assert str(caught.value) == why


@given(st.text())
def test_a_key_that_is_accepted_is_utf8_of_the_right_size(key: str) -> None:
    fits = 1 <= len(key.encode()) <= 512
    try:
        assert check_key(key) == key
        assert fits
    except InvalidKey:
        assert not fits


def test_declaring_machines_needs_no_redis() -> None:
    code = "import sys, statemq, statemq.examples.resource; sys.exit('redis' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT).returncode == 0
