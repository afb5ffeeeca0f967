"""Guards: pure functions that refuse a command and say why."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, ForwardRef

import msgspec

from statemq.declaration.annotations import annotations_of, signature_of
from statemq.declaration.operation import unfinished
from statemq.declaration.signature import Problem, Signature, doc, is_async
from statemq.errors import Reject, deciding


class Guard(msgspec.Struct, frozen=True, eq=False):
    """A compiled ``guard=``: called with the instance and those arguments that it names."""

    fn: Callable[..., Any]
    names: tuple[str, ...]
    reason: str
    """What a refusal says when the guard gives no reason of its own."""
    none_passes: bool
    """A guard declared ``-> None`` refuses by Reject only; for all others None is as good as False."""

    def refusal(self, instance: Any, arguments: Mapping[str, Any]) -> Reject | None:
        """Why the command is refused now, or None."""
        try:
            answer = self.fn(instance, **{name: arguments[name] for name in self.names})
        except (Reject, BaseExceptionGroup) as error:
            if isinstance(reject := deciding(error), Reject):
                return reject
            raise
        if answer is True:
            return None
        if isinstance(answer, Reject):
            return answer
        if unfinished(answer):
            raise TypeError(f"guard {self.fn.__name__} answered with a {type(answer).__name__}; a guard answers at once, true or false")
        if isinstance(answer, str):  # meant as the reason of a refusal, and true
            raise TypeError(f"guard {self.fn.__name__} answered with a text; a guard answers true or false, or Reject with a reason")
        if answer or (answer is None and self.none_passes):
            return None
        return Reject(self.reason)


def read_guard(fn: Any, signature: Signature | None, problem: Problem) -> Guard | None:
    """The compiled guard of a transition with this signature (None: unreadable, names are not checked)."""
    if not inspect.isfunction(fn):
        problem(f"it must be a function, not {fn!r}")
        return None
    if is_async(fn):
        problem("it is async; a guard is a plain function")
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        problem("it is a generator; a guard answers true or false")
    parameters = list(signature_of(fn).parameters.values())
    if not parameters or parameters[0].kind not in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
        problem("its first parameter must be the instance")
    known = {parameter.name for parameter in signature.parameters} if signature else set()
    names = []
    for parameter in parameters[1:]:
        if parameter.name in known and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            names.append(parameter.name)
        elif signature and parameter.default is parameter.empty:
            problem(f"it asks for {parameter.name}, which is no argument of the transition")
    reason = doc(fn) or ("its guard refuses" if fn.__name__ == "<lambda>" else f"guard {fn.__name__} refuses")
    returns = annotations_of(fn).get("return", "")
    if isinstance(returns, ForwardRef):
        returns = returns.__forward_arg__
    if re.search(r"\bstr\b", returns if isinstance(returns, str) else inspect.formatannotation(returns)):
        problem('it answers with a text; a guard answers true or false, or Reject("why")')
    return Guard(fn, tuple(names), reason, returns is None or returns == "None")
