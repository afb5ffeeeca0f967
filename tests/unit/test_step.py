"""What a step knows of its function."""

from __future__ import annotations

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
    ],
)
def test_how_it_is_called_and_what_it_returns(fn: Callable[..., Any], is_async: bool, returns: Any) -> None:
    step = asked("a", fn, (), None, None, None)
    assert (step.is_async, step.returns) == (is_async, returns)
    assert asked("a", fn, (), None, None, str).returns is str


def test_an_object_whose_method_was_a_step_is_not_kept() -> None:
    shop = Shop()
    kept = weakref.ref(shop)
    for fn in (shop.pay, functools.partial(shop.pay, cents=1)):
        asked("a", fn, (), None, None, None)
    del shop, fn
    gc.collect()
    assert kept() is None
