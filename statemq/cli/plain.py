"""Words that can mean only one thing are taken as they are: typer asks pydantic about each, which loads longer than commands run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from typing import Any

_NUMBER = re.compile(r"[0-9]{1,15}")


class NotPlain(Exception):
    """What typer is asked about; it also words every error."""


def quicken(command: Any) -> None:
    """The command, and those below it, ask typer only about words that are not plain; what they return and refuse stays the same."""
    command.get_params = partial(_parameters, command.get_params)
    for below in getattr(command, "commands", {}).values():
        quicken(below)


def _parameters(every: Callable[[Any], list[Any]], context: Any) -> list[Any]:
    """All of a command's parameters, --help among them, which is made for each call."""
    found = every(context)
    for parameter in found:
        if hasattr(parameter, "type_descriptor") and "process_value" not in vars(parameter):
            parameter.process_value = partial(_process, parameter, parameter.process_value)
    return found


def _process(parameter: Any, asked: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    try:
        plain = _several(parameter, value) if parameter.multiple or parameter.nargs == -1 else _one(parameter, value)
        if parameter.required and parameter.value_is_missing(plain):
            raise NotPlain
    except NotPlain:
        return asked(context, value)
    return parameter.callback(context, parameter, plain) if parameter.callback is not None else plain


def _several(parameter: Any, values: Iterable[Any] | None) -> Any:
    if values is None:
        return ()
    if parameter.type_descriptor.annotation != list[str] or isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise NotPlain
    return list(values)


def _one(parameter: Any, value: Any) -> Any:
    kind, about = parameter.type_descriptor.annotation, parameter.type_descriptor.parameter_info
    if value is None:
        return None
    if about.parser is not None:
        try:
            return about.parser(value)
        except ValueError:
            raise NotPlain from None
    if kind in (str, bool) and isinstance(value, kind):
        return value
    if isinstance(kind, type) and issubclass(kind, Enum) and isinstance(value, kind):  # a default
        return value
    if kind is int and _NUMBER.fullmatch(str(value)) and not about.clamp:
        number = int(value)
        if (about.min is None or number >= about.min) and (about.max is None or number <= about.max):
            return number
    raise NotPlain
