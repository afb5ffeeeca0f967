"""Which case of a transition applies, what guards say, and where a transition may end."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from statemq import ANY, Context, Machine, Reject, transition
from statemq.declaration.operation import InvalidResult
from statemq.errors import Fail, UnknownTransition


class Account(msgspec.Struct):
    balance: int = 3


def enough(self: Any, amount: int) -> bool:
    """the balance must cover the amount

    More words that no refusal needs.
    """
    return bool(self.data.balance >= amount)


def says_why(self: Any, amount: int) -> None:
    if self.data.balance < amount:
        raise Reject(f"balance {self.data.balance} < {amount}", code="funds")


class Door(Machine[Account], initial="open", final="gone"):
    @transition(source=ANY, target="gone")
    def leave(self) -> str:
        return "any"

    @leave.when(["shut", "open"], target="open")
    def several(self) -> str:
        return "several"

    @leave.when("shut", target="shut")
    def exact(self) -> str:
        return "exact"

    @transition(source="open", target=["shut", "locked", "ajar", "barred"])
    async def close(self, ctx: Context, amount: int = 1) -> None: ...

    @transition(source="open", guard=enough)
    def pay(self, amount: int) -> None: ...

    @pay.when("shut", guard=says_why)
    def pay_shut(self, amount: int) -> None: ...

    @pay.when("locked", guard=lambda self: None)
    def pay_locked(self, amount: int) -> None: ...

    @pay.when("ajar", guard=lambda self: Reject("not ajar"))
    def pay_ajar(self, amount: int) -> None: ...

    @pay.when("barred", guard=lambda self: "it is barred")
    def pay_barred(self, amount: int) -> None: ...


spec = Door.spec


def fn_name(transition: str, state: str) -> str | None:
    case = spec.transition(transition).case(state)
    return case.fn.__name__ if case else None


def test_one_state_beats_several_and_several_beat_any() -> None:
    assert [fn_name("leave", state) for state in ("shut", "open", "locked")] == ["exact", "several", "leave"]


def test_any_is_every_state_that_is_not_final() -> None:
    assert fn_name("leave", "gone") is None
    assert spec.transition("leave").case("no such state") is None


def test_a_refusal_says_what_is_needed() -> None:
    assert spec.refusal("close", "shut", "a") == "door/a is shut; close needs open"
    assert spec.refusal("pay", "gone", "a/b") == "door/a/b is gone; pay needs open, shut, locked, ajar or barred"
    assert spec.allowed("open") == ["leave", "close", "pay"]
    assert spec.allowed("gone") == []


def test_unknown_names() -> None:
    with pytest.raises(UnknownTransition, match='door has no transition "opne"; it has: leave, close, pay'):
        spec.transition("opne")
    with pytest.raises(UnknownTransition, match='door has no query "status"; it has: none'):
        spec.query("status")


@pytest.mark.parametrize(
    ("state", "amount", "reason"),
    [
        ("open", 3, None),
        ("open", 4, "the balance must cover the amount"),
        ("shut", 3, None),
        ("shut", 4, "balance 3 < 4"),
        ("locked", 1, "its guard refuses"),
        ("ajar", 1, "not ajar"),
    ],
)
def test_guards_say_why(state: str, amount: int, reason: str | None) -> None:
    case = spec.transition("pay").case(state)
    assert case is not None
    instance = spec.build("a", state, 1, None)
    assert case.check_guard(instance, {"amount": amount}) == reason


def test_a_guard_that_answers_with_a_text_is_wrong() -> None:
    """It means a reason to refuse, and is true."""
    case = spec.transition("pay").case("barred")
    assert case is not None
    with pytest.raises(TypeError, match="answered with a text; a guard answers true or false, or Reject with a reason"):
        case.refused(spec.build("a", "barred", 1, None), {"amount": 1})


def test_a_guards_own_code_is_kept() -> None:
    case = spec.transition("pay").case("shut")
    assert case is not None
    refused = case.refused(spec.build("a", "shut", 1, None), {"amount": 9})
    assert refused is not None
    assert refused.code == "funds"


def test_pure_and_context_are_known() -> None:
    close, leave = spec.transition("close").cases[0], spec.transition("leave").cases[0]
    assert (close.pure, close.has_ctx) == (False, True)
    assert (leave.pure, leave.has_ctx) == (True, False)


def end(transition: str, state: str, body_sets: str | None) -> str:
    case = spec.transition(transition).case(state)
    assert case is not None
    instance = spec.build("a", state, 1, None)
    if body_sets is not None:
        instance.state = body_sets
    return spec.finish(case, instance)


@pytest.mark.parametrize(
    ("transition", "state", "body_sets", "ends"),
    [
        ("leave", "locked", None, "gone"),
        ("leave", "locked", "gone", "gone"),
        ("leave", "shut", None, "shut"),
        ("close", "open", "locked", "locked"),
        ("pay", "open", None, "open"),
    ],
)
def test_where_it_ends(transition: str, state: str, body_sets: str | None, ends: str) -> None:
    assert end(transition, state, body_sets) == ends


@pytest.mark.parametrize(
    ("transition", "state", "body_sets", "message"),
    [
        ("leave", "locked", "open", "door/a: leave has the target gone, but its body set self.state to open"),
        ("close", "open", None, "door/a: close must set self.state to one of shut, locked, ajar, barred; it is still open"),
        ("close", "open", "gone", "door/a: close set self.state to gone; its targets are shut, locked, ajar, barred"),
        ("pay", "open", "shut", "door/a: pay has no target, but its body set self.state to shut"),
    ],
)
def test_a_state_outside_the_target_fails_for_good(transition: str, state: str, body_sets: str | None, message: str) -> None:
    with pytest.raises(InvalidResult) as caught:
        end(transition, state, body_sets)
    assert isinstance(caught.value, Fail)
    assert (caught.value.reason, caught.value.code) == (message, "state")


def test_the_graph_is_plain_json() -> None:
    graph = msgspec.json.decode(msgspec.json.encode(spec.graph()))
    assert graph == spec.graph()
    assert (graph["name"], graph["initial"], graph["final"]) == ("door", "open", ["gone"])
    assert graph["transitions"][1] == {"name": "leave", "source": ["shut", "open"], "target": ["open"], "guard": None, "doc": ""}
    assert graph["transitions"][4]["guard"] == "the balance must cover the amount"
    assert graph["transitions"][4]["target"] is None
    assert set(graph["arguments"]) == {"leave", "close", "pay"}
