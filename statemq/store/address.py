"""Where a Redis is and how to be let in, from a URL: one server, or a service of which sentinels know the primary."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import msgspec
from redis.asyncio.connection import SSLConnection, parse_url

from statemq.config import shown
from statemq.errors import UsageError

Place = tuple[str, int]
"""Host and port."""

SENTINEL_PORT = 26379


class Sentinels(msgspec.Struct, frozen=True):
    """Who knows the primary of ``service``, and how to be let in there; TLS is the service's."""

    service: str
    places: tuple[Place, ...]
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Sentinels({self.service!r}, {self.places})"


class Address(msgspec.Struct, frozen=True):
    """One server. ``path`` is a unix socket's; else ``host`` and ``port``, which ``sentinels`` know, if there are any.

    Its ``str`` holds no secret.
    """

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
    sentinels: Sentinels | None = None

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        scheme, db = "rediss" if self.tls else "redis", f"/{self.db}" if self.db else ""
        if self.sentinels is None:
            return f"{scheme}://{_said(self.host, self.port)}{db}"
        places = ",".join(_said(*place) for place in self.sentinels.places)
        return f"{scheme}+sentinel://{places}/{self.sentinels.service}{db}"

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


def _said(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(url: str) -> Address:
    """The address in ``redis://[user:password@]host:port/db``, ``rediss://…`` (TLS), ``unix://path``, or
    ``redis+sentinel://[user:password@]host:port,host:port/service/db`` (also ``rediss+sentinel``)."""
    scheme = url.partition("://")[0].lower()
    return _parse_service(url) if scheme in ("redis+sentinel", "rediss+sentinel") else _parse_server(url, shown(url))


def _parse_service(url: str) -> Address:
    """As ``_parse_server``; the host is a list, the path begins with the service, and sentinels may want a login of their own."""
    scheme, _, rest = url.partition("+sentinel://")
    body, mark, query = rest.partition("?")
    where, _, path = body.partition("/")
    login, at, hosts = where.rpartition("@")
    service, slash, db = path.partition("/")
    options = parse_qs(query)
    own = {name: options.pop(f"sentinel_{name}", [""])[0] for name in ("username", "password")}
    try:
        parts = [urlsplit(f"//{host}") for host in hosts.split(",")]
        places = tuple((part.hostname or "", part.port or SENTINEL_PORT) for part in parts)
        if not unquote(service) or not all(host for host, _ in places):
            raise ValueError
    except ValueError:
        raise UsageError(
            f'"{shown(url)}" names no sentinels and service; write redis+sentinel://user:password@host1:26379,host2:26379/service/0 '
            "(user and password are those of the service's servers; ?sentinel_username=…&sentinel_password=… those of the sentinels)"
        ) from None
    one = f"{scheme}://{login}{at}primary{slash}{db}{mark if options else ''}{urlencode(options, doseq=True)}"
    server = _parse_server(one, shown(url))
    return msgspec.structs.replace(server, host="", port=0, sentinels=Sentinels(unquote(service), places, **own))


def _parse_server(url: str, said: str) -> Address:
    try:
        parts: dict[str, Any] = dict(parse_url(url))
        split = urlsplit(url)
        _ = split.port
        if split.scheme != "unix" and split.path.strip("/") and not split.path.strip("/").isdecimal():
            raise ValueError
    except ValueError:  # its words may quote a password with a "#" or "/" in it
        raise UsageError(
            f'"{said}" is no Redis URL; write redis://user:password@localhost:6379/0 or unix:///path/to.sock '
            '(port and database are numbers; in a password, "#", "/" and "@" are %23, %2F and %40)'
        ) from None
    if unknown := set(parts) - _KNOWN:
        raise UsageError(f'the Redis URL "{said}" has options that statemq does not know: {", ".join(sorted(unknown))}')
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
