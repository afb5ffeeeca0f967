"""What a machine class has from its bases: the options of their class statements, and what they say of its data and states."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar, get_args, get_origin

from typing_extensions import NoDefault

from statemq.retry import Retry

UNSAID: Any = object()
"""An option that a class statement leaves to the bases."""

OPTIONS = "_statemq_options"
"""Each machine class keeps under this name what its own class statement says."""


class Options(NamedTuple):
    """The keyword arguments of the class statement."""

    name: Any
    initial: Any
    final: Any
    legacy: Any
    partitions: Any
    retry: Any
    on_failure: Any


DEFAULTS = Options(None, None, (), (), 16, Retry(), "skip")


def options_of(cls: type[Any], written: Options) -> Options:
    """Those that are ``written`` in the class statement, and of the others what the nearest base says; a name is each class's own."""
    setattr(cls, OPTIONS, written)
    said = [vars(ancestor)[OPTIONS] for ancestor in cls.__mro__ if OPTIONS in vars(ancestor)]
    nearest = [next(value for value in column if value is not UNSAID) for column in zip(*said, DEFAULTS, strict=True)]
    return Options(*nearest)._replace(name=written.name)


def is_machine_class(value: Any) -> bool:
    """It derives from Machine, as a machine or as a base of machines."""
    return isinstance(value, type) and hasattr(value, OPTIONS)


def parameters_of(cls: type[Any], base: type[Any]) -> tuple[Any, Any]:
    """Data and Status of ``base[Data, Status]``, where ``cls`` or a base of it says so; None for what was left out.

    A base that is generic itself passes on what it is given: ``class Audited(Machine[D, S])``, ``class Order(Audited[Data, Status])``.
    """
    data, status = (*map(_default, _arguments(cls, base)), None, None)[:2]
    return data, status


def _default(argument: Any) -> Any:
    """What stands for a type variable that nobody has given anything."""
    default = getattr(argument, "__default__", NoDefault) if isinstance(argument, TypeVar) else NoDefault
    return argument if default is NoDefault else default


def _arguments(cls: type[Any], base: type[Any]) -> tuple[Any, ...]:
    generics = vars(cls).get("__orig_bases__", cls.__bases__)
    for generic in generics:
        if get_origin(generic) is base:
            return get_args(generic)
    for generic in generics:
        origin: Any = get_origin(generic) or generic
        if isinstance(origin, type) and issubclass(origin, base) and (passed := _arguments(origin, base)):
            given = dict(zip(getattr(origin, "__parameters__", ()), get_args(generic), strict=False))
            return tuple(given.get(argument, argument) for argument in passed)
    return ()
