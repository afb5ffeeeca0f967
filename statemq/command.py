"""A command as a value: what is asked of which instance, before it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import msgspec

from statemq.config import LIMITS
from statemq.context import InvalidCall
from statemq.errors import InvalidKey

if TYPE_CHECKING:
    from statemq.declaration.spec import MachineSpec

R = TypeVar("R", covariant=True)


class Declared(Protocol):
    """A machine class whose declaration was read and found right."""

    spec: ClassVar[MachineSpec]


class Command(msgspec.Struct, Generic[R], frozen=True):
    """``Resource.setUp("a", size=2)``: sends nothing; key and arguments are checked. ``R`` is the type of its result."""

    machine: type[Declared]
    key: str
    transition: str
    args: bytes = b"{}"
    """A JSON object: the arguments that were given, in the order of the signature."""

    if not TYPE_CHECKING:  # a type checker refuses it by itself

        def __await__(self):
            raise InvalidCall(
                f"{self.machine.__name__}.{self.transition}(key) only makes a command; send it with await client.call(command)"
            )

    def __str__(self) -> str:
        return f"{self.machine.spec.name}/{self.key} {self.transition} {self.args.decode()}"


class Question(msgspec.Struct, Generic[R], frozen=True):
    """``Resource.total("a", since=3)`` of a ``@query``: asks nothing; key and arguments are checked. ``R`` is the type of its answer."""

    machine: type[Declared]
    key: str
    query: str
    args: bytes = b"{}"
    """A JSON object, as a command's."""

    if not TYPE_CHECKING:  # a type checker refuses it by itself

        def __await__(self):
            raise InvalidCall(self.how())

        def __bool__(self):  # in an "if" it would be true, whatever the answer
            raise InvalidCall(self.how())

    def how(self) -> str:
        """What to do with it."""
        return f"{self.machine.__name__}.{self.query} is a query, which makes no command; ask it with client.query(question)"

    def __str__(self) -> str:
        return f"{self.machine.spec.name}/{self.key} {self.query} {self.args.decode()}"


def check_key(key: Any) -> str:
    """The key itself, if it can be one: any text of 1 to 512 bytes in UTF-8. Raises InvalidKey."""
    if not isinstance(key, str):
        raise InvalidKey(f"a key is a text, not {type(key).__name__}")
    if not key:
        raise InvalidKey("a key cannot be empty")
    try:
        size = len(key.encode())
    except UnicodeEncodeError as error:
        raise InvalidKey(f"a key must be valid Unicode; this one has a lone surrogate at position {error.start}") from None
    if size > LIMITS.key:
        raise InvalidKey(f"a key has at most {LIMITS.key} bytes in UTF-8; this one has {size}")
    return key
