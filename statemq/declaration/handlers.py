"""What a user writes in a machine's body: ``@transition``, its ``.when`` cases, ``@query`` and ``ANY``.

These only note what was written; ``declare`` checks it when the class is complete.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Coroutine, Iterable
from functools import wraps
from types import FrameType
from typing import TYPE_CHECKING, Any, Concatenate, Final, Generic, NoReturn, ParamSpec, Protocol, TypeVar, overload

import msgspec

from statemq.command import Command, Declared, Question, check_key
from statemq.context import Context, Duration
from statemq.declaration.spec import QuerySpec, TransitionSpec
from statemq.declaration.state import State, each
from statemq.errors import Fail, UsageError
from statemq.retry import Retry

P = ParamSpec("P")
R = TypeVar("R")

ANY: Final = "*"
"""As ``source=``: every state that is not final."""

States = State | Iterable[State]
Guarded = Callable[..., Any]
"""``guard(self, **arguments it names)``; pure; false, or Reject (raised or returned), refuses."""


class Written(msgspec.Struct, frozen=True, eq=False):
    """One case as it was written."""

    fn: Callable[..., Any]
    source: tuple[Any, ...]
    target: tuple[Any, ...] | None
    guard: Guarded | None
    retry: Any
    timeout: Any


WRITTEN = "_statemq_written"
"""In a class body: every transition and query that was written in it by its name; the class forgets what a second one replaces."""


def note(fn: Any, what: Any) -> None:
    """The class body that is being executed and holds ``fn`` knows ``what`` was made of it, and which plain method it replaces."""
    outer, _, name = getattr(fn, "__qualname__", "").rpartition(".")
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and (frame.f_code.co_name != outer.rpartition(".")[2] or frame.f_locals.get("__qualname__") != outer):
        frame = frame.f_back
    if frame is None:
        return
    body = frame.f_locals
    former = body.get(name)
    written = body.setdefault(WRITTEN, [])
    if inspect.isfunction(former) and former.__qualname__ == fn.__qualname__ and former is not inspect.unwrap(fn):
        written.append((name, former))
    written.append((name, what))


class Transition(Generic[P, R]):
    """A command of a machine. Called with a key and the handler's arguments it gives a ``Command``; it runs nothing."""

    def __init__(self, first: Written, name: str | None) -> None:
        self.cases = [first]
        self.name = name
        self.machine: type[Declared] | None = None
        self.complete = ""
        """As what it belongs to a class whose body has ended."""
        self.spec: TransitionSpec | None = None
        self.__doc__ = first.fn.__doc__

    def __call__(self, key: str, /, *args: P.args, **kwargs: P.kwargs) -> Command[R]:
        """The command as a value. Raises InvalidKey, InvalidArguments."""
        if self.machine is None or self.spec is None:
            name = self.name or self.cases[0].fn.__name__
            if self.complete:
                raise UsageError(f"{self.complete} is of a base without an initial state; make the command of a machine: X.{name}(key)")
            raise UsageError(f"transition {name} belongs to no machine class yet")
        given: Any = key
        if isinstance(given, Context) or hasattr(type(given), "spec"):  # M.go(ctx), M.go(self, ctx)
            self._called_in_a_body()
        return Command(self.machine, check_key(key), self.spec.name, self.spec.encode_arguments(args, kwargs))

    if not TYPE_CHECKING:  # type checkers refuse the call by its arguments

        def __get__(self, instance: object | None, owner: type[Any]) -> Any:
            """Of an instance, in whose body it stands: what would make a command that nobody sends fails the running one."""
            return self if instance is None else self._called_in_a_body

    def _called_in_a_body(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise Fail(
            f"{self.name} is a transition, which cannot be called in a body; move what both do to a plain method and call that. "
            "To send it, make its command of the class",
            "usage",
        )

    def when(
        self,
        state: States,
        *,
        target: States | None = None,
        guard: Guarded | None = None,
        retry: Retry | None = None,
        timeout: Duration | None = None,
    ) -> _When[P, R]:
        """The decorated function is what this command does in ``state``; its signature is the same."""
        if self.complete:
            raise UsageError(f"{self.complete} is complete: a case stands in the class of its transition")

        def add(fn: Callable[..., Any]) -> Any:
            self.cases.append(Written(fn, each(state), None if target is None else each(target), guard, retry, timeout))
            return fn

        return add


class Query(Generic[P, R]):
    """A read-only question about a committed snapshot; called with a key and the method's arguments it gives a ``Question``, which asks
    nothing. On an instance it is the method itself."""

    def __init__(self, fn: Callable[Concatenate[Any, P], R]) -> None:
        self.fn = fn
        self.machine: type[Declared] | None = None
        self.complete = ""
        """As what it belongs to a class whose body has ended."""
        self.spec: QuerySpec | None = None
        self.__doc__ = fn.__doc__

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Query[P, R]: ...
    @overload
    def __get__(self, instance: object, owner: type[Any]) -> Callable[P, R]: ...
    def __get__(self, instance: object | None, owner: type[Any]) -> Query[P, R] | Callable[P, R]:
        return self if instance is None else self.fn.__get__(instance, owner)

    def __call__(self, key: str, /, *args: P.args, **kwargs: P.kwargs) -> Question[R]:
        """The question as a value, for ``client.query``. Raises InvalidKey, InvalidArguments."""
        if self.machine is None or self.spec is None:
            name = self.fn.__name__
            if self.complete:
                raise UsageError(f"{self.complete} is of a base without an initial state; ask a machine: X.{name}(key)")
            raise UsageError(f"query {name} belongs to no machine class yet")
        return Question(self.machine, check_key(key), self.spec.name, self.spec.encode_arguments(args, kwargs))


class _Transition(Protocol):
    @overload
    def __call__(self, fn: Callable[Concatenate[Any, Context, P], Coroutine[Any, Any, R]], /) -> Transition[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Any, Context, P], R], /) -> Transition[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /) -> Transition[P, R]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Any, P], R], /) -> Transition[P, R]: ...


class _When(Protocol[P, R]):
    @overload
    def __call__(
        self, fn: Callable[Concatenate[Any, Context, P], Coroutine[Any, Any, R]], /
    ) -> Callable[Concatenate[Any, Context, P], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Any, Context, P], R], /) -> Callable[Concatenate[Any, Context, P], R]: ...
    @overload
    def __call__(
        self, fn: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
    ) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[Concatenate[Any, P], R], /) -> Callable[Concatenate[Any, P], R]: ...


def transition(
    *,
    source: States,
    target: States | None = None,
    guard: Guarded | None = None,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: Duration | None = None,
) -> _Transition:
    """Declare a transition: ``async def`` or, for a pure one, ``def``, with ``(self, ctx, **typed arguments)``.

    ``source`` one state, several, or ANY. ``target`` one state; several (the body sets ``self.state``); none: the
    instance stays. ``guard`` is called with ``self`` and the arguments it names and must be pure: a false answer
    refuses the command with the first line of its docstring, ``Reject`` with its own words. ``name`` is the
    command's name on the wire, the method's unless given. A pure ``def`` may leave out ``ctx``.

    ``retry`` for attempts that raise, the machine's unless given. ``timeout`` is what one attempt of an ``async def`` may take, beside
    ``ctx.sleep`` and waiting for Redis; then it is cancelled where it awaits, and that counts as an error (TimeoutError). The thread of a
    blocking step cannot be stopped: it goes on, beside the next attempt.
    """

    sources, targets = each(source), None if target is None else each(target)

    def declare(fn: Callable[..., Any]) -> Any:
        made: Transition[Any, Any] = Transition(Written(fn, sources, targets, guard, retry, timeout), name)
        note(fn, made)
        return made

    return declare


if not TYPE_CHECKING:  # a type checker refuses these by itself
    _declare = transition

    @wraps(_declare)
    def transition(*given, **options):
        if given or "source" not in options:
            raise UsageError("a transition says where it starts: write @transition(source=..., target=...)")
        return _declare(**options)


def query(fn: Callable[Concatenate[Any, P], R]) -> Query[P, R]:
    """Declare a read-only method ``def name(self, **typed arguments) -> T`` that clients may call without queueing."""
    if not callable(fn):
        raise UsageError("a query takes no options: write @query, without parentheses")
    made = Query(fn)
    note(fn, made)
    return made


if not TYPE_CHECKING:
    _ask = query

    @wraps(_ask)
    def query(fn=None, *given, **options):
        return _ask(None if given or options else fn)
