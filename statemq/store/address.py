"""Where a Redis is and how to be let in, from a URL: one server, or a service of which sentinels know the primary."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

import msgspec

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


SCHEMES = {"redis": False, "valkey": False, "rediss": True, "valkeys": True, "unix": False}
"""Of one server's URL, and whether it means TLS."""

_OWN = {"db", "username", "password", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_YES, _NO = ("true", "t", "yes", "y", "on", "1"), ("false", "f", "no", "n", "off", "0")

_DONE_ANYWAY = {
    "decode_responses": (_YES, "texts are given as texts"),
    "encoding": (("utf-8", "utf8"), "texts are UTF-8"),
    "protocol": (("2",), "RESP2 is what is spoken"),
    "retry_on_timeout": (_YES, "what is not answered is always sent again, else its order would not hold"),
    "socket_keepalive": (_YES, "else a host that has vanished would not be noticed"),
    "ssl": (_YES, "rediss:// means TLS"),
    "ssl_cert_reqs": (("required", "cert_required", "2"), "certificates are always checked, and ssl_ca_certs=FILE names a private CA"),
    "ssl_check_hostname": (_YES, "else any other host's certificate would do"),
    "ssl_min_version": (("TLSv1.2", "tlsv1_2", "771"), "older ones are broken, and of newer ones both ends take the newest that they know"),
}
"""Options of other clients: the value that changes nothing here, as it is written by this client and that, and why no other is taken."""

_NOT_HERE = {
    "max_connections": "a client has one connection to a server, and a worker a few",
    **dict.fromkeys(("socket_timeout", "socket_connect_timeout", "timeout"), "give a time-out to the client: Client(url, timeout=10)"),
}


def _said(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(url: str) -> Address:
    """The address in ``redis://[user:password@]host:port/db``, ``rediss://…`` (TLS), ``unix://path``, or
    ``redis+sentinel://[user:password@]host:port,host:port/service/db`` (also ``rediss+sentinel``); ``valkey`` and ``valkeys`` mean the
    same as ``redis`` and ``rediss``."""
    scheme, _, kind = url.partition("://")[0].lower().partition("+")
    return _parse_service(url) if kind == "sentinel" and scheme in SCHEMES and scheme != "unix" else _parse_server(url, shown(url))


def _parse_service(url: str) -> Address:
    """As ``_parse_server``; the host is a list, the path begins with the service, and sentinels may want a login of their own."""
    scheme, _, rest = url.partition("://")
    body, mark, query = rest.partition("?")
    where, _, path = body.partition("/")
    login, at, hosts = where.rpartition("@")
    service, slash, db = path.partition("/")
    options = parse_qs(query, keep_blank_values=True)
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
    scheme = scheme.lower().removesuffix("+sentinel")
    one = f"{scheme}://{login}{at}primary{slash}{db}{mark if options else ''}{urlencode(options, doseq=True)}"
    server = _parse_server(one, shown(url))
    return msgspec.structs.replace(server, host="", port=0, sentinels=Sentinels(unquote(service), places, **own))


def _parse_server(url: str, said: str) -> Address:
    try:
        split = urlsplit(url)
        options = parse_qs(split.query, keep_blank_values=True)
        if split.scheme not in SCHEMES:
            raise ValueError
        path = "" if split.scheme == "unix" else split.path.strip("/")
        numbers = [text for text in (*options.get("db", []), path) if text]
        if not all(text.isascii() and text.isdecimal() for text in numbers):
            raise ValueError
        one = Address(
            host=unquote(split.hostname or "") or "localhost",
            port=split.port or 6379,
            path=unquote(split.path) if split.scheme == "unix" else "",
            db=int(numbers[0]) if numbers else 0,
            username=unquote(split.username or "") or options.get("username", [""])[0],
            password=unquote(split.password or "") or options.get("password", [""])[0],
            tls=SCHEMES[split.scheme],
            ca_certs=options.get("ssl_ca_certs", [""])[0],
            certfile=options.get("ssl_certfile", [""])[0],
            keyfile=options.get("ssl_keyfile", [""])[0],
        )
    except ValueError:  # its words may quote a password with a "#" or "/" in it
        raise UsageError(
            f'"{said}" is no Redis URL; write redis://user:password@localhost:6379/0 or unix:///path/to.sock '
            '(port and database are numbers; in a password, "#", "/" and "@" are %23, %2F and %40)'
        ) from None
    _check_options(options, one.tls, said)
    return one


def _check_options(options: Mapping[str, list[str]], tls: bool, said: str) -> None:
    """All of them are known, and none asks for anything else than what is done, or for less. A value may be a secret, and is not said."""
    if unknown := options.keys() - _OWN - _DONE_ANYWAY.keys() - _NOT_HERE.keys():
        raise UsageError(f'the Redis URL "{said}" has options that statemq does not know: {", ".join(sorted(unknown))}')
    for name, values in options.items():
        if name in _NOT_HERE:
            raise UsageError(f'the Redis URL "{said}" has the option {name}, which is none here: {_NOT_HERE[name]}')
        given = {value.lower() for value in values}
        if name.startswith("ssl") and not tls and not (name == "ssl" and given <= {*_NO}):
            raise UsageError(f'the Redis URL "{said}" has the option {name}, but means a connection without TLS; write rediss://')
        if name in _DONE_ANYWAY and tls >= name.startswith("ssl"):
            written, why = _DONE_ANYWAY[name]
            if not given <= {value.lower() for value in written}:
                raise UsageError(
                    f'the Redis URL "{said}" gives {name} a value that statemq does not know, only {written[0]} is taken: {why}'
                )
