"""Names in annotations that are there for type checkers only: as texts, and, from Python 3.14 on, evaluated when they are read."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from statemq import Fail
from statemq.errors import DeclarationError
from statemq.worker.step import _check_call, asked

CODE = """
import functools
from typing import TYPE_CHECKING

import msgspec

from statemq import Context, Machine, transition

if TYPE_CHECKING:
    from elsewhere import Nowhere, Nothing

def half_read(rows: Nowhere, *more: Nothing) -> "list[Receipt]": return [Receipt()]

class Shop:
    def till(self, on: Nowhere) -> "Receipt": return Receipt()
    def __call__(self, on: Nowhere) -> "Receipt": return Receipt()

def unreadable(rows: Nowhere) -> "list[Nothing]": return []

@functools.cache
def cached(on: Nowhere) -> int: return 1

class Receipt(msgspec.Struct):
    total: int = 0

def paid(order: Nowhere) -> bool: return True
def says_why(order: Nowhere) -> "str": return "no"
def about_str(order: Nowhere) -> Nothing: return True

def order(guard):
    class Order(Machine, initial="new"):
        @transition(source="new", target="new", guard=guard)
        def go(self, ctx: Context) -> None: ...
    return Order
"""
AT_ONCE = "from __future__ import annotations\n"
"""Before Python 3.14 such code needs it."""


def loaded(above: str) -> SimpleNamespace:
    made: dict[str, Any] = {"__name__": "late"}
    exec(compile(above + CODE, "late.py", "exec", dont_inherit=True), made)
    return SimpleNamespace(**made)


@pytest.fixture(params=[AT_ONCE] if sys.version_info < (3, 14) else [AT_ONCE, ""], ids=lambda above: "texts" if above else "late")
def late(request: pytest.FixtureRequest) -> SimpleNamespace:
    return loaded(request.param)


def test_what_a_step_returns_is_read_alone(late: SimpleNamespace) -> None:
    said = [asked("a", fn, (), None, None, None).returns for fn in (late.half_read, late.Shop().till, late.Shop(), late.cached)]
    assert said == [list[late.Receipt], late.Receipt, late.Receipt, int]


def test_a_call_with_wrong_arguments_is_told_as_such(late: SimpleNamespace) -> None:
    error = TypeError("the function's own")
    for fn in (late.half_read, late.Shop().till, late.cached):
        with pytest.raises(Fail, match="its function cannot be called with the arguments of this step"):
            _check_call(fn, (), error)
        _check_call(fn, (1,), error)


def test_a_guard_may_name_what_only_type_checkers_know(late: SimpleNamespace) -> None:
    late.order(late.paid)
    late.order(late.about_str)
    with pytest.raises(DeclarationError, match="it answers with a text"):
        late.order(late.says_why)
