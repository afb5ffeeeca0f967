"""S16: ``rediss://`` is TLS with a certificate that was checked, or nothing: no way back to plain text, no flag that looks away."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from statemq import Client
from statemq.errors import RedisAway, UsageError
from statemq.server import EmbeddedServer
from statemq.store.address import parse
from statemq.store.router import Router
from tests.security.machines import Echo

SIGNS = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
"""What RFC 5280 asks of a CA; Python 3.13 and newer insist on it, and on the identifiers of who has signed."""


def openssl(folder: Path, *words: str) -> None:
    subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem and four certificates: good, for another name, expired, and signed by nobody."""
    folder = tmp_path_factory.mktemp("tls")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(folder, "req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2", *SIGNS)
    for name, host, days in (("good", "localhost", "2"), ("other", "elsewhere.example", "2"), ("expired", "localhost", "-1")):
        openssl(folder, "req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={host}")
        (folder / "san").write_text(f"subjectAltName=DNS:{host}\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", days, "-extfile", "san")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signed)
    self_signed = ("-keyout", "unknown.key", "-out", "unknown.pem", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    openssl(folder, "req", "-x509", *key, *self_signed, "-days", "2")
    return folder


class Front:
    """TLS in front of a Redis; ``passed``: what came through, decrypted."""

    def __init__(self, port: int) -> None:
        self.port, self.passed = port, b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_connection("127.0.0.1", self.port)

        async def copy(source: asyncio.StreamReader, to: asyncio.StreamWriter, note: bool) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65536):
                    self.passed += data if note else b""
                    to.write(data)
                    await to.drain()
            to.close()

        await asyncio.gather(copy(reader, redis_writer, True), copy(redis_reader, writer, False))


@contextlib.asynccontextmanager
async def front(server: EmbeddedServer, certificates: Path, name: str, plain: bool = False) -> AsyncIterator[tuple[Front, int]]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    behind = Front(server.port)
    listening = await asyncio.start_server(behind.serve, "127.0.0.1", 0, ssl=None if plain else context)
    yield behind, listening.sockets[0].getsockname()[1]
    listening.close()


async def test_a_good_certificate_is_let_in(server: EmbeddedServer, certificates: Path, namespace: str) -> None:
    async with front(server, certificates, "good") as (behind, port):
        url = f"rediss://localhost:{port}?ssl_ca_certs={certificates / 'ca.pem'}"
        async with Client(url, namespace=namespace, machines=[Echo]) as client:
            assert (await client.get(Echo, "a")).state == "quiet"
        assert behind.passed


@pytest.mark.parametrize(
    ("name", "ca", "why"),
    [
        ("good", False, "unable to get local issuer"),
        ("unknown", True, "self-signed|self signed"),
        ("unknown", False, "self-signed|self signed"),
        ("other", True, "Hostname mismatch"),
        ("expired", True, "expired"),
    ],
)
async def test_others_are_not(server: EmbeddedServer, certificates: Path, name: str, ca: bool, why: str) -> None:
    async with front(server, certificates, name) as (behind, port):
        url = f"rediss://:the-password@localhost:{port}" + (f"?ssl_ca_certs={certificates / 'ca.pem'}" if ca else "")
        with pytest.raises(RedisAway, match=why) as refused:
            await Router(url).open(timeout_s=2)
        assert "the-password" not in str(refused.value)
        assert behind.passed == b"", "nothing was said to a server that could not prove its name"


async def test_a_plain_server_is_not_spoken_to_in_plain(server: EmbeddedServer, certificates: Path) -> None:
    async with front(server, certificates, "good", plain=True) as (behind, port):
        with pytest.raises(RedisAway):
            await Router(f"rediss://:the-password@localhost:{port}").open(timeout_s=2)
        assert b"the-password" not in behind.passed and b"HELLO" not in behind.passed


@pytest.mark.parametrize("option", ["ssl_cert_reqs=none", "ssl_check_hostname=False", "ssl_ca_data=x", "verify=none", "ssl=0"])
def test_no_option_looks_away(option: str) -> None:
    with pytest.raises(UsageError, match="statemq does not know"):
        parse(f"rediss://localhost?{option}")


def test_the_context_checks_both() -> None:
    context = parse("rediss://localhost").ssl_context()
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert parse("redis://localhost").ssl_context() is None


def test_no_source_turns_the_checks_off(sources: list[Path]) -> None:
    for path in sources:
        text = path.read_text()
        for word in ("CERT_NONE", "check_hostname = False", "_create_unverified_context", "verify=False", "CERT_OPTIONAL"):
            assert word not in text, path
