"""Who may ask: the Host allow-list, the origin of browser writes, bearer tokens with roles. All before routing."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Any

import falcon.asgi

from statemq.config import HttpSettings
from statemq.errors import UsageError
from statemq.http.framing import CLOSE, check_framing
from statemq.http.guessable import SHORTEST, is_guessable
from statemq.http.guesses import Guesses
from statemq.http.problems import Refusal
from statemq.http.request import Request

HOW_TO_MAKE_ONE = "make one with: head -c 24 /dev/urandom | base64"

READ, SUBMIT, OPERATE = "read", "submit", "operate"
ROLES = frozenset({READ, SUBMIT, OPERATE})
"""To look; to send commands; to cancel them."""

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
HEALTH = ("-", "health")
PROBES = frozenset({HEALTH, ("-", "ready")})
"""Answered without a token and by any Host, since what watches the process has no token and asks by the address of the moment. Who has
neither a token nor an allowed Host (a page whose name was rebound to this address) hears yes or no, and no reason."""

READING = frozenset({"GET", "HEAD", "OPTIONS"})

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
"""On every answer. No CORS header is ever sent: pages of other origins may not read."""


class Tokens:
    """Bearer tokens and what each may do. Only their digests are kept."""

    def __init__(self, roles_of: Mapping[str, Iterable[str]]) -> None:
        self._roles_of: list[tuple[bytes, frozenset[str]]] = []
        for token, roles in roles_of.items():
            check_token(token)
            granted = frozenset(roles)
            if unknown := granted - ROLES:
                raise UsageError(f"a token cannot have the role {', '.join(sorted(unknown))}; roles are {', '.join(sorted(ROLES))}")
            self._roles_of.append((_digest(token), granted))

    @classmethod
    def of_digests(cls, roles_of: Mapping[str, Iterable[str]]) -> Tokens:
        """The tokens whose ``digests`` these are."""
        tokens = cls({})
        tokens._roles_of = [(bytes.fromhex(digest), frozenset(roles)) for digest, roles in roles_of.items()]
        return tokens

    def digests(self) -> dict[str, list[str]]:
        """What another process must know to take the same tokens; none of them can be read out of it."""
        return {digest.hex(): sorted(roles) for digest, roles in self._roles_of}

    @classmethod
    def parse(cls, text: str, source: str = "the tokens") -> Tokens | None:
        """One token a line, behind it its roles. None if there is no token.

        A word that begins with ``#`` begins a comment; a ``#`` within a token is a character of it. Raises UsageError for a line that
        cannot be meant, or whose token cannot be one, by its number in ``source``, since its words may be a secret.
        """
        roles_of: dict[str, Iterable[str]] = {}
        for number, line in enumerate(text.split("\n"), 1):
            words, comment = _words_and_comment(line)
            if not words:
                continue
            token, roles, place = words[0], frozenset(words[1:]), f"line {number} of {source}"
            if roles - ROLES:
                raise UsageError(f"{place} has a word behind its token that is no role: {', '.join(sorted(ROLES))} are")
            if not roles and ROLES.intersection(re.findall(r"\w+", comment.lower())):
                raise UsageError(f"{place} has a role in its comment only: write it before the #, or in its own line")
            if token in roles_of:
                raise UsageError(f"{place} repeats a token: write all its roles in one line")
            check_token(token, f"{place}: ")
            if not roles:  # who forgets them means hardly all of them
                raise UsageError(f"{place} has no role behind its token: write those that it shall have, of read, submit, operate")
            roles_of[token] = roles
        return cls(roles_of) if roles_of else None

    def roles(self, token: str) -> frozenset[str] | None:
        """What the token may do, or None if it is none. Takes the same time whichever is compared."""
        given, found = _digest(token), None
        for known, roles in self._roles_of:
            if hmac.compare_digest(known, given):
                found = roles
        return found


def check_token(token: str, place: str = "") -> None:
    """Raises UsageError, which begins with ``place`` and does not repeat the token, for one that cannot be one or is easy to guess."""
    if not re.fullmatch(rf"[!-~]{{{SHORTEST},}}", token):
        raise UsageError(f"{place}a token has at least {SHORTEST} characters, printable ASCII without spaces; {HOW_TO_MAKE_ONE}")
    if is_guessable(token):
        raise UsageError(f"{place}a token is easy to guess (a common word, a row of keys, repetition); {HOW_TO_MAKE_ONE}")


def _words_and_comment(line: str) -> tuple[list[str], str]:
    """Spaces and tabs part words; any other character belongs to its word, which is refused for it where it is a token."""
    words = [word for word in re.split(r"[ \t\r]+", line) if word]
    begins = next((n for n, word in enumerate(words) if word.startswith("#")), len(words))
    return words[:begins], " ".join(words[begins:])


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


class Access:
    """Falcon middleware: refuses before anything of the request has been acted on, and hardens every answer."""

    def __init__(self, tokens: Tokens | None, allowed_hosts: Iterable[str], *, keys_by_token: bool = False) -> None:
        if keys_by_token and tokens is None:
            raise UsageError(
                "idempotency keys can be each token's own only where tokens are asked for: set STATEMQ_TOKEN (or --token-file)"
            )
        self.tokens, self.keys_by_token = tokens, keys_by_token
        self.hosts = LOOPBACK_NAMES | {bracketed(host.lower()) for host in allowed_hosts}
        self.limit(HttpSettings())

    def limit(self, settings: HttpSettings) -> None:
        self.max_header_bytes = settings.max_header_bytes
        self.guesses = Guesses(settings.wrong_token_s)

    async def process_request(self, req: Request, resp: falcon.asgi.Response) -> None:
        req.body_left = check_framing(req.scope, self.max_header_bytes)
        probe = is_probe(req)
        if not self.is_known_host(req):
            if not probe:
                raise Refusal("host", "this server does not answer to that Host; allow the name when it is started")
            return
        if req.method not in READING:
            check_origin(req)
        roles = self.roles(req)
        if roles is None and req.get_header("Authorization") and not (probe and req.segments == HEALTH):  # which tells nobody more
            await self.guesses.wrong(address_of(req))
        if roles is None and not probe:
            raise Refusal("token", "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})
        req.roles = roles or frozenset()

    async def process_resource(self, req: Request, resp: falcon.asgi.Response, resource: Any, params: dict[str, Any]) -> None:
        needed = READ if req.method in READING else resource.write_role
        if needed not in req.roles and req.segments not in PROBES:
            raise Refusal("role", f"this token does not have the role {needed}")

    async def process_response(self, req: Request, resp: falcon.asgi.Response, resource: Any, req_succeeded: bool) -> None:
        resp.set_headers(HEADERS)
        if req.body_left:  # the server would read on until its end, for as long as the caller likes
            resp.set_headers(CLOSE)

    def is_known_host(self, req: Request) -> bool:
        """A page whose name was rebound to this address still sends its own name as Host."""
        name = host_name(req.get_header("Host") or "")  # several are joined by commas, and no name
        return name in self.hosts or "*" in self.hosts

    def roles(self, req: Request) -> frozenset[str] | None:
        """What the caller may do; None if it has no valid token. The request knows its caller from then on."""
        if self.tokens is None:
            req.caller = address_of(req)
            return ROLES
        scheme, _, token = (req.get_header("Authorization") or "").partition(" ")
        roles = self.tokens.roles(token.strip()) if scheme.lower() == "bearer" else None
        if roles is not None:
            mark = _digest(token.strip()).hex()
            req.caller = f"token {mark[:8]}"
            req.keys_of = f"{mark[:16]}:" if self.keys_by_token else ""
        return roles


def is_probe(req: Request) -> bool:
    try:
        return req.segments in PROBES
    except Refusal:  # a path that cannot be read is refused in its turn, after its Host and token
        return False


def address_of(req: Request) -> str:
    """The address from which the request comes: that of the last proxy, if there are any."""
    return str((req.scope.get("client") or ("",))[0])


def check_origin(req: Request) -> None:
    """Browsers say where a write comes from; only a page of this very server may change something."""
    if req.header("Sec-Fetch-Site").lower() not in ("", "same-origin", "none"):
        raise Refusal("origin", "a page of another origin may not change anything here")
    origin = req.header("Origin")
    if origin and origin.lower().partition("://")[2] != req.header("Host").lower():
        raise Refusal("origin", "a page of another origin may not change anything here")


def host_name(host: str) -> str:
    """The name of a Host header without its port: ``[::1]:8080`` is ``[::1]``."""
    return re.sub(r":\d*$", "", host.strip().lower())


def bracketed(host: str) -> str:
    """An IPv6 address as it stands in a Host header."""
    return f"[{host}]" if host.count(":") > 1 and not host.startswith("[") else host
