"""What a step knows of its function."""

from __future__ import annotations

import dataclasses
import functools
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from statemq.worker.step import asked


class Shop:
    async def pay(self, cents: int = 0) -> int:
        return cents

    def close(self) -> None: ...

    async def __call__(self) -> str:
        return ""


def plain(): ...  # type: ignore[no-untyped-def]


def unreadable() -> Nowhere: ...  # type: ignore[name-defined]  # noqa: F821


def prose(amount: "in cents, or so") -> int: ...  # type: ignore[syntax]  # noqa: F722


def divides(amount: 1 / 0) -> int: ...  # type: ignore[valid-type]


@dataclasses.dataclass
class Unhashable:
    async def __call__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("fn", "is_async", "returns"),
    [
        (Shop().pay, True, int),
        (functools.partial(functools.partial(Shop().pay), cents=3), True, int),
        (Shop().close, False, type(None)),
        (Shop(), True, Any),
        (plain, False, Any),
        (unreadable, False, Any),
        (len, False, Any),
        (prose, False, Any),
        (divides, False, Any),
        (Unhashable(), True, Any),
        (functools.partial(Unhashable()), True, Any),
    ],
)
def test_how_it_is_called_and_what_it_returns(fn: Callable[..., Any], is_async: bool, returns: Any) -> None:
    step = asked("a", fn, (), None, None, None)
    assert (step.is_async, step.returns) == (is_async, returns)
    assert asked("a", fn, (), None, None, str).returns is str


def paying(shop: Shop) -> Callable[[], Any]:
    return lambda: shop.pay()


def test_what_was_a_step_is_not_kept() -> None:
    shop, other = Shop(), Shop()
    closure = paying(shop)
    kept = [weakref.ref(shop), weakref.ref(other), weakref.ref(closure)]
    for fn in (shop.pay, functools.partial(shop.pay, cents=1), other, closure):
        asked("a", fn, (), None, None, None)
    del shop, other, closure, fn
    gc.collect()
    assert [ref() for ref in kept] == [None, None, None]
