"""What a machine class has from its bases: transitions, queries, types and options; and a base that is no machine itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import pytest

from statemq import ANY, Client, Machine, Retry, UsageError, query, sync, transition
from statemq.declaration.spec import MachineSpec, spec_of
from statemq.errors import DeclarationError
from statemq.target import load_target
from statemq.worker.daemon import Worker


class Status(StrEnum):
    NEW = "NEW"
    DONE = "DONE"


class Data(msgspec.Struct):
    count: int = 0


FEW, MORE = Retry(attempts=2), Retry(attempts=7)


class Base(Machine[Data, Status], final=Status.DONE, partitions=4, retry=FEW, on_failure="pause"):
    """No machine: it has no initial state."""

    @transition(source=Status.NEW, target=Status.DONE)
    def end(self) -> int:
        return self.data.count

    @query
    def count(self) -> int:
        return self.data.count


def options(spec: MachineSpec) -> tuple[Any, ...]:
    return spec.name, spec.initial, spec.final, spec.partitions, spec.retry, spec.on_failure


def problems(declare: Callable[[], object]) -> list[str]:
    with pytest.raises(DeclarationError) as caught:
        declare()
    return caught.value.problems


def test_options_are_those_of_the_bases() -> None:
    class Order(Base, initial=Status.NEW):
        pass

    class Refund(Order, name="refund_order"):
        pass

    class Below(Refund):
        pass

    assert options(Order.spec) == ("order", "NEW", {"DONE"}, 4, FEW, "pause")
    assert options(Refund.spec) == ("refund_order", "NEW", {"DONE"}, 4, FEW, "pause")
    assert options(Below.spec) == ("below", "NEW", {"DONE"}, 4, FEW, "pause"), "two machines cannot have one name"
    assert (Below.spec.data_type, Below.spec.states, list(Below.spec.queries)) == (Data, ("NEW", "DONE"), ["count"])
    assert (Order.end("a").machine, Below.end("a").machine) == (Order, Below)


def test_what_a_class_says_itself_counts() -> None:
    class Order(Base, initial=Status.NEW, final=(), partitions=16, retry=MORE, on_failure="skip"):
        @transition(source=Status.DONE, target=Status.NEW)
        def again(self) -> None: ...

    class Turned(Order, initial=Status.DONE):
        pass

    assert options(Order.spec) == ("order", "NEW", frozenset(), 16, MORE, "skip")
    assert options(Turned.spec) == ("turned", "DONE", frozenset(), 16, MORE, "skip")


def test_of_several_bases_the_nearest_that_says_anything_counts() -> None:
    class Patient(Machine[Data, Status], retry=MORE):
        pass

    class Wide(Machine[Data, Status], partitions=64, retry=FEW):
        pass

    class Both(Patient, Wide, initial=Status.NEW):
        @transition(source=ANY, target=[Status.NEW, Status.DONE])
        def go(self) -> None: ...

    assert options(Both.spec) == ("both", "NEW", frozenset(), 64, MORE, "skip")


def test_what_a_base_says_is_checked_with_the_class() -> None:
    def leads_out() -> None:
        class Reopened(Base, initial=Status.NEW):
            @transition(source=Status.DONE, target=Status.NEW)
            def reopen(self) -> None: ...

    def wrong() -> None:
        class Wrong(Machine[Data, Status], partitions=0, retry=3, final="AWAY"):  # type: ignore[arg-type]
            @transition(source="MID")
            def go(self, x) -> None: ...  # type: ignore[no-untyped-def]

    assert problems(leads_out) == ["reopen: DONE is final, but this leads out of it"]
    assert len(problems(wrong)) == 5, "a base is not spared until somebody derives from it"


def test_an_abstract_method_is_defined_by_each_machine() -> None:
    class Priced(Machine[Data, Status], ABC):
        @abstractmethod
        def price(self) -> int: ...

        @transition(source=Status.NEW, target=Status.DONE)
        def pay(self) -> int:
            return self.price()

    class Free(Priced, initial=Status.NEW):
        def price(self) -> int:
            return 0

    def unpriced() -> None:
        class Unpriced(Priced, initial=Status.NEW):
            pass

    assert Free.spec.build("a", "NEW", 0, None).price() == 0
    assert problems(unpriced) == ["price is abstract: define it here, or leave out initial, for a base of machines"]


D = TypeVar("D", bound=msgspec.Struct)
S = TypeVar("S", bound=Enum)


def test_a_base_may_leave_its_types_open() -> None:
    class Audited(Machine[D, S], partitions=2):
        @transition(source=ANY)
        def note(self, text: str) -> int:
            return len(text)

    class Turned(Audited[D, S], Generic[S, D]):
        pass

    class Order(Turned[Status, Data], initial=Status.NEW):
        @transition(source=Status.NEW, target=Status.DONE)
        def end(self) -> None: ...

    assert (Order.spec.data_type, Order.spec.states, Order.spec.partitions) == (Data, ("NEW", "DONE"), 2)
    assert Order.spec.members["NEW"] is Status.NEW

    class Named(Machine, retry=MORE):
        @transition(source="a", target="b")
        def go(self) -> None: ...

    class Untyped(Named, initial="a"):
        @transition(source="b", target="a")
        def back(self) -> None: ...

    assert (Untyped.spec.states, Untyped.spec.retry) == (("a", "b"), MORE)


def test_what_is_asked_of_a_base_is_refused_in_one_sentence() -> None:
    said = r"machine Base is declared wrong:\n  - it has no initial state: class X\(Machine\[\.\.\.\], initial=\.\.\.\)$"
    for ask in (lambda: Worker([Base]), lambda: Client(machines=[Base]), lambda: sync.Client(machines=[Base]), lambda: spec_of(Base)):
        with pytest.raises(DeclarationError, match=said):
            ask()
    with pytest.raises(UsageError, match=r"Base\.end is of a base without an initial state; make the command of a machine: X\.end\(key\)"):
        Base.end("a")
    with pytest.raises(UsageError, match=r"Base\.end is complete: a case stands in the class of its transition"):
        Base.end.when(Status.DONE)
    with pytest.raises(UsageError, match=r"<class 'int'> is no machine; give its class, or its name"):
        spec_of(int)

    def named() -> None:
        class Forgotten(Machine[Data, Status], name="forgotten"):
            pass

    assert problems(named)[0].startswith("it has a name, which only a machine has; it has no initial state: ")


BASES = """
from statemq import Machine, transition

class Base(Machine, partitions=3):
    @transition(source="a")
    def stay(self) -> None: ...
"""


def test_a_target_gives_its_machines_and_not_their_bases(tmp_path: Path) -> None:
    (tmp_path / "target_of_both.py").write_text(f"{BASES}\nclass Leaf(Base, initial='a'): pass\n")
    (tmp_path / "forgot_initial.py").write_text(f"{BASES}\nclass Other(Machine, initial='a'): pass\n")
    assert [(cls.__name__, cls.spec.partitions) for cls in load_target(f"{tmp_path}/target_of_both.py")] == [("Leaf", 3)]
    with pytest.raises(DeclarationError, match=r"machine Base is declared wrong:\n  - it has no initial state"):
        load_target(f"{tmp_path}/target_of_both.py:Base")
    with pytest.raises(
        DeclarationError, match=r"Base .*\n  - it has no initial state: .*; without one it is a base, and no machine derives"
    ):
        load_target(f"{tmp_path}/forgot_initial.py")
