"""Where to listen: resolved, free, and not open to others without a token."""

from __future__ import annotations

import errno
import ipaddress
import socket

import msgspec

from statemq.errors import PortTaken, UsageError
from statemq.http.access import bracketed


class Address(msgspec.Struct, frozen=True):
    """A numeric address that was free a moment ago."""

    ip: str
    port: int

    @property
    def near(self) -> str:
        """The address by which this machine reaches it."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.ip, self.ip)  # noqa: S104 - names them, binds nothing

    @property
    def url(self) -> str:
        return f"http://{bracketed(self.near)}:{self.port}"


def find_address(host: str, port: int, *, protected: bool) -> Address:
    """The address of ``host``; port 0 becomes a free one. ``protected``: a token is asked for.

    Raises UsageError for an unprotected address beyond loopback, PortTaken.
    """
    ip = resolve(host)
    if not protected and not ipaddress.ip_address(ip).is_loopback:
        raise UsageError(f"{host} is reachable by others: set STATEMQ_TOKEN (or --token-file) to listen there, or listen on 127.0.0.1")
    with socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ip, port))  # without SO_REUSEPORT, which the server sets: two servers must not share a port unawares
        except PermissionError:
            raise UsageError(f"port {port} needs privileges this process does not have; choose one above 1023 with --port") from None
        except OSError as error:
            why = "is taken by another program" if error.errno == errno.EADDRINUSE else f"cannot be listened on ({error.strerror})"
            kind = PortTaken if error.errno == errno.EADDRINUSE else UsageError
            raise kind(f"port {port} on {host} {why}; choose another with --port") from None
        return Address(ip, int(probe.getsockname()[1]))


def resolve(host: str) -> str:
    """The numeric address of a name, IPv4 first."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UsageError(f'"{host}" is no address of this machine') from None
    return str(min(found, key=lambda info: info[0] != socket.AF_INET)[4][0])


def own_names(host: str, address: Address) -> list[str]:
    """What callers may write as Host: the name that was asked for, its address; for all addresses, this machine's name."""
    if address.near != address.ip:
        return [socket.gethostname()]
    return [host.strip("[]"), address.ip]
