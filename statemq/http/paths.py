"""A request's path as segments: split before decoding, so that ``%2F`` stays inside a key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from statemq.http.problems import Refusal

_BROKEN_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def split_path(scope: Mapping[str, Any]) -> tuple[str, ...]:
    """The decoded segments below the place where the app is mounted; ``/`` has none. Raises Refusal for what is no UTF-8.

    >>> split_path({"raw_path": b"/resource/a%2Fb/setUp"})
    ('resource', 'a/b', 'setUp')
    """
    raw: bytes | None = scope.get("raw_path")
    if not raw:  # optional in ASGI; then only the decoded path is known, and a key cannot hold a slash
        raw = quote(scope["path"]).encode()
    raw = raw.partition(b"?")[0]
    root = quote(scope.get("root_path") or "").encode().rstrip(b"/")
    if root and raw.startswith(root + b"/"):
        raw = raw[len(root) :]
    if raw in (b"", b"/"):
        return ()
    return tuple(_decode(segment) for segment in raw.removeprefix(b"/").split(b"/"))


def _decode(segment: bytes) -> str:
    if _BROKEN_ESCAPE.search(segment):
        raise Refusal("key", 'the path has a "%" without two hex digits behind it; write %25 for the sign itself')
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError:
        raise Refusal("key", "the path is no UTF-8 once its escapes are decoded") from None


def join_path(root: str, *segments: str) -> str:
    """The inverse: an absolute path whose segments are ``segments``."""
    return root.rstrip("/") + "".join(f"/{quote(segment, safe='')}" for segment in segments)


def header_id(id: str) -> str:
    """A command's id as a header's value. Those made here stand as they are; of others, characters that no header can hold are escaped."""
    return quote(id, safe="!#$&'()*+,/:;=?@[]~|^`{}<>")
