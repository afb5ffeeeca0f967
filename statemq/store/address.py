"""Where a Redis is and how to be let in, from a URL."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import urlsplit

import msgspec
from redis.asyncio.connection import SSLConnection, parse_url

from statemq.config import shown
from statemq.errors import UsageError


class Address(msgspec.Struct, frozen=True):
    """One server. ``path`` is a unix socket's; else ``host`` and ``port``. Its ``str`` holds no secret."""

    host: str = "localhost"
    port: int = 6379
    path: str = ""
    db: int = 0
    username: str = ""
    password: str = ""
    tls: bool = False
    ca_certs: str = ""
    certfile: str = ""
    keyfile: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}" + (f"/{self.db}" if self.db else "")

    def __repr__(self) -> str:
        return f"Address({self})"

    def at(self, host: str, port: int) -> Address:
        """The same way in to another node."""
        return msgspec.structs.replace(self, host=host or self.host, port=port, path="")

    def ssl_context(self) -> ssl.SSLContext | None:
        """Certificates and host names are always checked; a private CA is named by ``?ssl_ca_certs=FILE``."""
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=self.ca_certs or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # older versions of Python leave it to the library
        if self.certfile:
            context.load_cert_chain(self.certfile, self.keyfile or None)
        return context


_KNOWN = {"host", "port", "path", "db", "username", "password", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "connection_class"}


def parse(url: str) -> Address:
    """The address in ``redis://[user:password@]host:port/db``, ``rediss://…`` (TLS) or ``unix://path``."""
    try:
        parts: dict[str, Any] = dict(parse_url(url))
        _ = urlsplit(url).port
    except ValueError:  # its words may quote a password with a "#" or "/" in it
        raise UsageError(
            f'"{shown(url)}" is no Redis URL; write redis://user:password@localhost:6379/0 or unix:///path/to.sock '
            '(the port is a number; in a password, "#", "/" and "@" are %23, %2F and %40)'
        ) from None
    if unknown := set(parts) - _KNOWN:
        raise UsageError(f'the Redis URL "{shown(url)}" has options that statemq does not know: {", ".join(sorted(unknown))}')
    return Address(
        host=parts.get("host") or "localhost",
        port=int(parts.get("port") or 6379),
        path=parts.get("path") or "",
        db=int(parts.get("db") or 0),
        username=parts.get("username") or "",
        password=parts.get("password") or "",
        tls=parts.get("connection_class") is SSLConnection,
        ca_certs=parts.get("ssl_ca_certs") or "",
        certfile=parts.get("ssl_certfile") or "",
        keyfile=parts.get("ssl_keyfile") or "",
    )
