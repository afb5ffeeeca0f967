"""A class that cannot work is refused at import, with every fault at once."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Literal

import msgspec
import pytest

from statemq import ANY, Context, DeclarationError, Machine, Retry, UsageError, query, transition


class Status(StrEnum):
    DOWN = "DOWN"
    UP = "UP"


class Other(StrEnum):
    UP = "UP"


class Data(msgspec.Struct):
    count: int = 0


class NoDefault(msgspec.Struct):
    count: int
    name: str = ""


class Opaque(msgspec.Struct):
    what: Callable[[], None] | None = None


def problems(declare: Callable[[], object]) -> list[str]:
    with pytest.raises(DeclarationError) as caught:
        declare()
    return caught.value.problems


def test_every_fault_is_told_at_once() -> None:
    def declare() -> None:
        class Bad(Machine[NoDefault, Status], initial="LOW", final=Status.UP, partitions=0, name="-"):
            @transition(source=["UP", "MID"], target="DOWN")  # type: ignore[arg-type]
            async def one(self, ctx: Context, *args: int, **more: int) -> str:
                return ""

            @transition(source=Status.DOWN, target=())
            def two(self, x, y: int = "1") -> object:  # type: ignore[no-untyped-def,assignment]
                return x

            @query
            async def ask(self) -> int:
                return 1

    assert problems(declare) == [
        '"-" cannot name a machine: a letter or "_", then letters, digits, "_"; at most 64',
        "partitions is a number from 1 to 4096, not 0",
        "initial: there is no state 'LOW'; there are: DOWN, UP",
        "every field of NoDefault needs a default; without one: count",
        "one: *args cannot be checked: name each argument",
        "one: **more cannot be checked: name each argument",
        "one: source: there is no state 'MID'; there are: DOWN, UP",
        "one: UP is final, but this leads out of it",
        "two: argument x has no type annotation",
        "two: the default '1' of argument y is no int",
        "two: JSON cannot carry its result type object",
        "two: target is empty; leave it out for a transition that stays in its state",
        "ask: a query is a plain def, it only reads",
    ]


def test_the_message_lists_them() -> None:
    with pytest.raises(DeclarationError, match=r"machine Nameless is declared wrong:\n  - it has a name, .*; it has no initial state"):

        class Nameless(Machine[Data, Status], name="nameless"):
            pass


make_class: Any = type


def body(**members: Any) -> Callable[[], object]:
    return lambda: make_class("Made", (Machine,), members, initial="a")


async def stay(self: Any, ctx: Context) -> None: ...


def sync_stay(self: Any) -> None: ...


def other_arguments(self: Any, ctx: Context, size: int) -> None: ...


def generator(self: Any, ctx: Context) -> Any:
    yield 1


def positional(self: Any, ctx: Context, size: int, /) -> None: ...


def unresolved(self: Any, ctx: Context, size: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def nobody() -> None: ...


def make_any(value: Any) -> Any:
    return value


def says_a_text(self: Any) -> str | None: ...


async def async_guard(self: Any) -> bool:
    return True


def traced(fn: Any) -> Any:
    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return inner


def bare(fn: Any) -> Any:
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return inner


def promises(self: Any) -> Awaitable[None]: ...  # type: ignore[empty-body]


class Callable_:
    async def __call__(self, instance: Any, ctx: Context) -> None: ...


def with_case(*conditions: Any, source: Any = "a", fn: Any = sync_stay, **options: Any) -> Any:
    declared: Any = transition(source=source)(stay)
    for condition in conditions:
        declared.when(condition, **options)(fn)
    return declared


@pytest.mark.parametrize(
    ("declare", "problem"),
    [
        (body(go=transition(source="a", guard=async_guard)(stay)), "go: guard: it is async; a guard is a plain function"),
        (body(go=transition(source="a", guard=lambda: True)(stay)), "go: guard: its first parameter must be the instance"),
        (
            body(go=transition(source="a", guard=lambda self, size: True)(stay)),
            "go: guard: it asks for size, which is no argument of the transition",
        ),
        (body(go=transition(source="a", guard="x")(stay)), "go: guard: it must be a function, not 'x'"),  # type: ignore[arg-type]
        (body(go=transition(source="a")(generator)), "go: it is a generator; return the result"),
        (body(go=transition(source="a", guard=traced(async_guard))(stay)), "go: guard: it is async; a guard is a plain function"),
        (body(go=transition(source="a", guard=generator)(stay)), "go: guard: it is a generator; a guard answers true or false"),
        (
            body(go=transition(source="a", guard=functools.partial(sync_stay))(stay)),
            "go: guard: it must be a function, not functools.partial",
        ),
        (body(go=transition(source="a", guard=Callable_())(stay)), "go: guard: it must be a function, not <"),
        (body(go=transition(source="a")(functools.partial(stay))), "go: it must be a function, not partial: write a def or async def"),
        (body(go=transition(source="a")(Callable_())), "go: it must be a function, not Callable_: write a def or async def"),
        (body(go=transition(source="a")(staticmethod(stay))), "go: it must be a function, not staticmethod"),
        (body(go=transition(source="a")(promises)), "go: JSON cannot carry its result type"),
        (body(go=transition(source="a")(bare(stay))), "go: its first parameter must be self"),
        (body(go=with_case("b", fn=functools.partial(stay))), "go.when functools.partial("),
        (body(go=traced(transition(source="a")(stay))), "go: what stands above @transition would hide it; put it below"),
        (body(go=staticmethod(transition(source="a")(stay))), "go: what stands above @transition would hide it; put it below"),
        (body(go=property(query(sync_stay))), "go: what stands above @query would hide it; put it below"),  # type: ignore[arg-type]
        (body(go=query(traced(async_guard))), "go: a query is a plain def, it only reads"),
        (body(go=transition(source="a")(staticmethod(sync_stay))), "go: it must be a function, not staticmethod"),
        (body(go=transition(source="a")(positional)), "go: argument size is positional-only: arguments travel by name"),
        (body(go=transition(source="a")(unresolved)), "go: its annotations cannot be resolved: name 'Missing' is not defined"),
        (body(go=transition(source="a")(make_any(nobody))), "go: its first parameter must be self"),
        (body(go=transition(source=[])(stay)), "go: it has no source state"),
        (body(go=transition(source=3)(stay)), "go: source: 3 is no state"),  # type: ignore[arg-type]
        (body(go=transition(source="a", retry=3)(stay)), "go: retry is a Retry, not 3"),  # type: ignore[arg-type]
        (
            body(go=transition(source="a", timeout=0)(stay)),
            "go: timeout is from 1 ms to ten years, in seconds, as a timedelta or as in 30s, not 0",
        ),
        (
            body(go=transition(source="a", timeout=True)(stay)),
            "go: timeout is from 1 ms to ten years, in seconds, as a timedelta or as in 30s, not True",
        ),
        (
            body(go=transition(source="a", timeout="5x")(stay)),
            "go: timeout is from 1 ms to ten years, in seconds, as a timedelta or as in 30s, not '5x'",
        ),
        (body(go=transition(source="a", timeout=1e12)(stay)), "go: timeout is from 1 ms to ten years"),
        (body(go=transition(source="a", guard=says_a_text)(stay)), "go: guard: it answers with a text; a guard answers true or false"),
        (body(go=transition(source="a", timeout=5)(sync_stay)), "go: timeout is for async def; a plain def runs at once"),
        (body(go=transition(source="a", name="go!")(stay)), '"go!" cannot name a transition'),
        (body(go=transition(source="a", target="not ok")(stay)), '"not ok" cannot name a state'),
        (body(go=with_case("a")), "go.when sync_stay: go has two cases for a"),
        (body(go=with_case("b", fn=other_arguments)), "go.when other_arguments: it must take the same arguments as go"),
        (body(sync_stay=with_case("b")), "sync_stay.when sync_stay: a case needs a name of its own"),
        (body(go=with_case(ANY, source=ANY)), "go.when sync_stay: go has two cases for a"),
        (body(state=transition(source="a")(stay)), '"state" is what every machine calls its state'),
        (
            body(one=transition(source="a", name="x")(stay), two=transition(source="a", name="x")(stay)),
            '"x" is declared twice',
        ),
        (body(one=transition(source="a", name="ask")(stay), ask=query(sync_stay)), '"ask" names a transition and a query'),
        (
            body(go=transition(source="b", target="c")(stay)),
            'no transition leads from a to b; legacy="b" keeps it for instances that are still in it',
        ),
    ],
)
def test_one_fault(declare: Callable[[], object], problem: str) -> None:
    found = problems(declare)
    assert any(told.startswith(problem) for told in found), found


def test_a_coroutine_function_behind_a_plain_decorator_is_one() -> None:
    machine = make_class("Made", (Machine,), {"go": transition(source="a", timeout=5)(traced(traced(stay)))}, initial="a")
    (case,) = machine.spec.transition("go").cases
    assert (case.pure, case.has_ctx, case.timeout_ms) == (False, True, 5000)


def test_the_class_statement() -> None:
    def declare(**options: Any) -> Callable[[], object]:
        return lambda: make_class("Made", (Machine,), {}, **{"initial": "a", **options})

    assert problems(declare(partitions=4097)) == ["partitions is a number from 1 to 4096, not 4097"]
    assert problems(declare(partitions=True)) == ["partitions is a number from 1 to 4096, not True"]
    assert problems(declare(on_failure="stop")) == ['on_failure is "skip" or "pause", not \'stop\'']
    assert problems(declare(retry=5)) == ["retry is a Retry, not 5"]
    assert problems(declare(name="")) == ['"" cannot name a machine: a letter or "_", then letters, digits, "_"; at most 64']
    assert problems(declare(name=7))[0].startswith('"7" cannot name a machine')
    assert problems(declare(name="x" * 65))[0].endswith("at most 64")
    assert problems(declare(final="b")) == ['no transition leads from a to b; legacy="b" keeps it for instances that are still in it']


def test_a_state_of_another_enum_is_no_state() -> None:
    def declare() -> None:
        class Mixed(Machine[Data, Status], initial=Status.DOWN):
            @transition(source=Status.DOWN, target=Other.UP)
            def go(self) -> None: ...

    assert problems(declare) == ["go: target: there is no state <Other.UP: 'UP'>; there are: DOWN, UP"]


def test_unreachable_states_are_named() -> None:
    def declare() -> None:
        class Alone(Machine[Data, Status], initial=Status.DOWN):
            @transition(source=ANY)
            def note(self) -> None: ...

    assert problems(declare) == ['no transition leads from DOWN to UP; legacy="UP" keeps it for instances that are still in it']


def test_data_that_is_no_struct_or_no_json() -> None:
    def not_a_struct() -> None:
        class Wrong(Machine[int, Status], initial=Status.DOWN):
            pass

    def no_json() -> None:
        class Wrong(Machine[Opaque], initial="a"):
            pass

    assert problems(not_a_struct)[0] == "data is a msgspec.Struct; int is none"
    assert problems(no_json)[0].startswith("Opaque cannot be kept as JSON: ")


def test_what_is_right_is_compiled() -> None:
    class PaymentOrder(
        Machine[Data, Status], initial=Status.DOWN, final=Status.UP, partitions=3, on_failure="pause", retry=Retry(attempts=2)
    ):
        @transition(source=ANY, target=Status.UP)
        async def finish(self, ctx: Context) -> None: ...

        @finish.when(Status.UP)
        def again(self) -> None: ...

    spec = PaymentOrder.spec
    assert (spec.name, spec.initial, spec.final, spec.states) == ("payment_order", "DOWN", frozenset({"UP"}), ("DOWN", "UP"))
    assert (spec.partitions, spec.on_failure, spec.retry.attempts, spec.cls) == (3, "pause", 2, PaymentOrder)
    assert all(type(state) is str for state in (spec.initial, *spec.final, *spec.states))


def test_without_status_the_named_states_are_the_states() -> None:
    class Two(Machine[Data], initial="new", final="old"):
        @transition(source="new", target=("mid", "old"))
        def go(self) -> None: ...

    class Bare(Machine, initial="only"):
        pass

    class Spelled(Machine[Data, Literal["x", "y"]], initial="x"):
        @transition(source="x", target="y")
        def go(self) -> None: ...

    assert Two.spec.states == ("new", "old", "mid")
    assert (Bare.spec.states, Bare.spec.data_type) == (("only",), None)
    assert Spelled.spec.states == ("x", "y")


def test_a_subclass_has_transitions_of_its_own() -> None:
    class Greeting:
        @transition(source="a")
        def hello(self) -> str:
            return "hello"

    class One(Greeting, Machine, initial="a"):
        pass

    class Two(One, initial="a", name="second"):
        @transition(source="a")
        def bye(self) -> str:
            return "bye"

    assert One.hello("k").machine is One
    assert Two.hello("k").machine is Two
    assert (list(One.spec.transitions), list(Two.spec.transitions)) == (["hello"], ["hello", "bye"])


def test_cases_cannot_be_added_from_outside() -> None:
    class One(Machine, initial="a"):
        @transition(source="a")
        def hello(self) -> None: ...

    with pytest.raises(UsageError, match=r"one\.hello is complete: a case stands in the class of its transition"):
        One.hello.when("a")


def test_a_machine_whose_states_are_all_final_says_so() -> None:
    class Done(Machine, initial="a", final="a"):
        @transition(source=ANY)
        def hello(self) -> None: ...

    assert Done.spec.refusal("hello", "a", "k") == "done/k is a; hello needs a state that is not final"


def test_states_may_come_from_any_iterable() -> None:
    class Loop(Machine, initial="a", final=iter(["z"])):
        @transition(source=(state for state in "ab"), target=frozenset("bz"))
        def on(self) -> None: ...

    assert (Loop.spec.states, Loop.spec.final) == (("a", "z", "b"), frozenset("z"))
    assert Loop.spec.graph()["transitions"][0] | {"doc": ""} == {
        "name": "on",
        "source": ["a", "b"],
        "target": ["b", "z"],
        "guard": None,
        "doc": "",
    }


def test_an_init_that_is_never_called_is_refused() -> None:
    with pytest.raises(DeclarationError, match="its __init__ is never called"):

        class Made(Machine[None], initial="on"):
            def __init__(self) -> None:
                self.made = True

            @transition(source="on")
            def go(self) -> None: ...


def plain(fn: Any) -> Any:
    def inner(self: Any) -> Any:
        return fn(self)

    return inner


def test_two_methods_of_one_name_are_refused() -> None:
    def two_transitions() -> None:
        class Twice(Machine[None], initial="on"):
            @transition(source="on", target="off")
            def go(self) -> None: ...

            @transition(source="off", target="on")  # type: ignore[no-redef]
            def go(self) -> None: ...  # noqa: F811

    def two_queries() -> None:
        class Twice(Machine[None], initial="on"):
            @query
            def look(self) -> None: ...

            @query  # type: ignore[no-redef]
            def look(self) -> None: ...  # noqa: F811

    def a_method_behind() -> None:
        class Twice(Machine[None], initial="on"):
            @transition(source="on")
            def go(self) -> None: ...

            def go(self) -> None: ...  # type: ignore[no-redef]  # noqa: F811

    def a_method_before() -> None:
        class Twice(Machine[None], initial="on"):
            def go(self) -> None: ...

            @transition(source="on")  # type: ignore[no-redef]
            def go(self) -> None: ...  # noqa: F811

    def a_case() -> None:
        class Twice(Machine[None], initial="on"):
            @transition(source="on", target="off")
            def go(self) -> None: ...

            @go.when("off")  # type: ignore[no-redef]
            def go(self) -> None: ...

    def in_a_mixin() -> None:
        class Mixin:
            @transition(source="on")
            def go(self) -> None: ...

            @transition(source="on")  # type: ignore[no-redef]
            def go(self) -> None: ...  # noqa: F811

        class Twice(Mixin, Machine[None], initial="on"): ...

    def around() -> None:
        class Twice(Machine[None], initial="on"):
            @plain
            @transition(source="on")
            def go(self) -> None: ...

    def a_value() -> None:
        class Twice(Machine[None], initial="on"):
            @query
            def limit(self) -> int:
                return 1

            limit = 5  # type: ignore[assignment]  # noqa: F811

    assert problems(a_value) == ["limit: something else of this name replaces it; give one another name"]
    second = "a second method of this name replaces the first"
    for declare in (two_transitions, two_queries, a_method_behind, a_method_before, a_case, in_a_mixin):
        assert any(second in problem for problem in problems(declare)), declare
    assert problems(two_transitions) == [f"go: {second}; a case for another state is @go.when(...) with a name of its own"]
    assert "go: what stands above @transition would hide it; put it below, around the function" in problems(around)


def test_a_name_that_is_used_twice_and_loses_nothing_is_taken() -> None:
    for _ in "12":  # a class in a function that is called again, and a module that dev reads again

        class Kept(Machine[None], initial="on"):
            @transition(source="on", target="off")
            def go(self) -> int:
                return 1

            @go.when("off")
            def _(self) -> int:
                return 2

            @transition(source="off", target="on")
            def back(self) -> int:
                return 3

            @back.when("on")  # type: ignore[no-redef]
            def _(self) -> int:
                return 4

            def other(self) -> int:
                return 5

            other = transition(source="on")(plain(other))  # type: ignore[assignment]
            first = go

            @transition(source="on", name="second")
            def go(self) -> int:  # type: ignore[no-redef]
                return 6

        class Over(Kept, initial="on"):
            @transition(source="on", target="off")
            def back(self) -> int:
                return 7

        assert [len(Kept.spec.transitions[name].cases) for name in ("first", "back", "second")] == [2, 2, 1]
        assert "back" in Over.spec.transitions


def test_a_state_that_nothing_leads_into_is_kept_as_legacy() -> None:
    class Kept(Machine[None], initial="new", legacy="old"):
        @transition(source="old", target="older")
        def on(self) -> None: ...

        @transition(source=ANY, target="new")
        def back(self) -> None: ...

    assert Kept.spec.states == ("new", "old", "older")
    assert Kept.spec.graph()["legacy"] == ["old"]

    def wrong() -> None:
        class Wrong(Machine[None, Status], initial="DOWN", legacy=["UP", "DOWN", "MID"]):  # type: ignore[list-item]
            @transition(source="DOWN", target="UP")
            def go(self) -> None: ...

    assert problems(wrong) == ["legacy: there is no state 'MID'; there are: DOWN, UP"]

    def still_reached() -> None:
        class Wrong(Machine[None, Status], initial="DOWN", legacy=Status):
            @transition(source="DOWN", target="UP")
            def go(self) -> None: ...

    assert problems(still_reached) == [
        "legacy: DOWN is the initial state; leave it out",
        "legacy: UP can still be reached from DOWN; leave it out",
    ]
