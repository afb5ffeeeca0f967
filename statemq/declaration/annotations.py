"""What a function says of its parameters and its result, though some of the names may be there for type checkers only.

Up to Python 3.13 annotations are evaluated with the ``def``, or are texts. From 3.14 on they are evaluated when somebody reads them, all of
a function's at once: one name that is not there at run time would be a NameError of whoever reads another. And ``functools.cache`` keeps
only how to evaluate them.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

if sys.version_info >= (3, 14):
    from annotationlib import Format, get_annotations

    def annotations_of(fn: Callable[..., Any]) -> Mapping[str, Any]:
        """As they stand in the code; a text, or a ForwardRef, is what could not be evaluated yet."""
        return get_annotations(fn, format=Format.FORWARDREF)

    def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
        return inspect.signature(fn, annotation_format=Format.FORWARDREF)

else:

    def annotations_of(fn: Callable[..., Any]) -> Mapping[str, Any]:
        """As they stand in the code; a text is what was not evaluated."""
        return getattr(fn, "__annotations__", {})

    def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
        return inspect.signature(fn)
