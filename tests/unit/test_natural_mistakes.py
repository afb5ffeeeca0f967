"""What people write at first, and is wrong, is answered with what to write instead."""

from __future__ import annotations

from typing import Any

import msgspec
import pydantic
import pytest

from statemq import Client, Context, DeclarationError, Fail, InvalidArguments, Machine, UsageError, query, sync, transition
from statemq.worker.step import _blocking, in_loop


class Door(Machine, initial="shut"):
    @transition(source="shut", target="open")
    def go(self, ctx: Context) -> None: ...

    @query
    def width(self) -> int:
        return 1


loose: Any = Door


def test_a_bare_transition_is_told_its_parentheses() -> None:
    declare: Any = transition
    for wrong in (lambda: declare(loose.width.fn), lambda: declare("shut"), lambda: declare(target="open"), declare):
        with pytest.raises(UsageError, match=r"write @transition\(source=\.\.\., target=\.\.\.\)"):
            wrong()


def test_a_transition_that_is_called_in_a_body_fails_at_once() -> None:
    """With whatever arguments: with a key it made a command that nobody sent, and the running one completed."""
    door: Any = object.__new__(Door)
    for call in (lambda: door.go(Context.__new__(Context)), lambda: door.go(), lambda: door.go("a"), lambda: door.go(text="x")):
        with pytest.raises(Fail, match="go is a transition, which cannot be called in a body; move what both do to a plain method"):
            call()
    assert loose.go("a").transition == "go", "of the class it makes a command"
    for call in (lambda: loose.go(Context.__new__(Context)), lambda: loose.go(door, Context.__new__(Context))):
        with pytest.raises(Fail, match="go is a transition, which cannot be called in a body"):
            call()


def test_an_instance_that_is_made_by_hand_is_told_whom_to_ask() -> None:
    for make in (lambda: loose(), lambda: loose("a"), lambda: loose(key="a")):
        with pytest.raises(TypeError, match=r"the worker makes each Door; to ask something of one, send Door\.<transition>\(key\)"):
            make()


def test_a_method_without_self_is_told_so() -> None:
    """Its ctx was the instance, which has no steps."""
    with pytest.raises(DeclarationError) as caught:

        class Gate(Machine, initial="shut"):
            @transition(source="shut")
            def go(ctx: Context) -> None: ...  # noqa: N805

            @transition(source="shut")
            def stay(ctx) -> None: ...  # type: ignore[no-untyped-def] # noqa: N805

    assert [problem.partition(": ")[2] for problem in caught.value.problems] == ["its first parameter must be self, before ctx"] * 2


async def test_a_command_that_is_awaited_in_a_body_fails_at_once() -> None:
    """Each attempt would await it."""
    for wrong in (loose.go("a"), loose.width("a")):
        with pytest.raises(Fail) as caught:
            await wrong
        assert isinstance(caught.value, UsageError)
        assert caught.value.code == "usage"


def test_a_question_is_no_answer() -> None:
    """In an if it was true, whatever its instance would have answered."""
    with pytest.raises(UsageError, match=r"Door\.width is a query, which makes no command; ask it with client\.query"):
        assert loose.width("a")
    assert loose.width("a") == loose.width("a")


def test_a_query_with_parentheses_is_told_to_leave_them_out() -> None:
    declare: Any = query
    for wrong in (declare, lambda: declare("width"), lambda: declare(name="width"), lambda: declare(loose.width.fn, 1)):
        with pytest.raises(UsageError, match="write @query, without parentheses"):
            wrong()


async def test_an_awaited_command_is_told_who_sends_it() -> None:
    with pytest.raises(UsageError, match=r"Door\.go\(key\) only makes a command; send it with await client\.call\(command\)"):
        await loose.go("a")


async def test_a_query_of_the_class_is_told_how_to_ask(url: str, namespace: str) -> None:
    told = pytest.raises(UsageError, match=r"Door\.width is a query, which makes no command; ask it with client\.query")
    with told:
        await loose.width("a")
    async with Client(url, namespace=namespace) as client:
        wrong: Any = client
        for send in (wrong.call, wrong.send, lambda question: wrong.send_many([question])):
            with told:
                await send(loose.width("a"))
        with pytest.raises(UsageError, match=r"go is a transition, which is sent, not asked: client\.call"):
            await wrong.query(loose.go("a"))
        with pytest.raises(UsageError, match=r"give a question, such as Order\.total\(key\), or machine, key and the query's name"):
            await wrong.query(Door, "a")


async def test_a_blocking_client_in_an_async_with_is_told_what_to_write() -> None:
    client: Any = sync.Client("redis://127.0.0.1:1")
    with pytest.raises(UsageError, match=r"^this client blocks: write with, or in an event loop async with statemq\.Client\(url\)$"):
        async with client:
            pass


def test_a_client_in_a_plain_with_is_told_of_the_other_client() -> None:
    client: Any = Client("redis://127.0.0.1:1")
    with pytest.raises(UsageError, match=r"write async with, or use statemq\.sync\.Client"), client:
        pass


async def test_a_step_whose_function_does_not_take_its_arguments_is_not_tried_again() -> None:
    async def pay(cents: int) -> None:
        raise TypeError(f"{cents} from within")

    def close(cents: int) -> None:
        raise TypeError(f"{cents} from within")

    for args in ((), (1, 2)):
        with pytest.raises(Fail, match="its function cannot be called with the arguments of this step"):
            await in_loop(pay, args)
        with pytest.raises(Fail, match="its function cannot be called with the arguments of this step"):
            _blocking(close, args)
    with pytest.raises(TypeError, match="1 from within"):
        await in_loop(pay, (1,))
    with pytest.raises(TypeError, match="1 from within"):
        _blocking(close, (1,))


class Card(pydantic.BaseModel):
    number: str = ""


class Wallet(msgspec.Struct):
    cards: list[Card] = []


def test_a_pydantic_model_is_told_what_to_write_instead() -> None:
    with pytest.raises(DeclarationError) as caught:

        class Pay(Machine[Wallet], initial="new"):
            @transition(source="new")
            def pay(self, card: Card) -> list[Card]: ...

            @transition(source="new")
            def sort(self, wallet: Wallet | None, more: dict[str, tuple[Card, ...]]) -> None: ...

            @query
            def best(self) -> Card | None: ...

    instead = "in place of the pydantic model Card take a msgspec.Struct or a dataclass with the same fields"
    assert len(caught.value.problems) == 6
    for problem in caught.value.problems:
        assert instead in problem
    with pytest.raises(InvalidArguments, match=r"of a pydantic model take .*model_dump\(mode=\"json\"\)"):
        Loose.take("a", given={"card": Card()})
    with pytest.raises(InvalidArguments, match=r"type object is unsupported$"):
        Loose.take("a", given=object())


class Loose(Machine, initial="new"):
    @transition(source="new")
    def take(self, given: Any) -> None: ...
