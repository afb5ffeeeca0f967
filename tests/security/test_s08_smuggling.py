"""S8: a request whose end can be read in two ways gets one refusal and no second request is read from its connection.

Behind each of them goes a whole, good request: if it is answered, something was smuggled.
"""

from __future__ import annotations

import pytest
import redis as redis_py

from statemq.server import EmbeddedServer
from tests.security.raw import HEALTH, HOST, JSON, SEND, speak
from tests.serving import Edge

CHUNKED = SEND + b"Transfer-Encoding: chunked\r\n\r\n"
BODY = b"2\r\n{}\r\n0\r\n\r\n"
NEXT = b"POST /gate/smuggled/setUp/send HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: 2\r\n\r\n{}"

REFUSED = {
    "two lengths": SEND + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a list of lengths": SEND + b"Content-Length: 2, 2\r\n\r\n{}",
    "a length with a plus": SEND + b"Content-Length: +2\r\n\r\n{}",
    "a length with a minus": SEND + b"Content-Length: -2\r\n\r\n{}",
    "a hexadecimal length": SEND + b"Content-Length: 0x2\r\n\r\n{}",
    "an empty length": SEND + b"Content-Length:\r\n\r\n{}",
    "a length in two words": SEND + b"Content-Length: 2 2\r\n\r\n{}",
    "a length beyond 64 bits": SEND + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "the largest length": SEND + b"Content-Length: 18446744073709551615\r\n\r\n{}",
    "a space before the colon of a length": SEND + b"Content-Length : 2\r\n\r\n{}",
    "a folded header": HEALTH + b"X: a\r\n b\r\n\r\n",
    "a header folded by a tab": HEALTH + b"X: a\r\n\tb\r\n\r\n",
    "a first header behind a space": b"GET /-/health HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n",
    "a bare CR in a value": HEALTH + b"X: a\rb\r\n\r\n",
    "a bare CR as line end": b"GET /-/health HTTP/1.1\rHost: localhost\r\n\r\n",
    "NUL in a value": HEALTH + b"X: a\0b\r\n\r\n",
    "NUL in a name": HEALTH + b"X\0: b\r\n\r\n",
    "a header without a name": HEALTH + b": b\r\n\r\n",
    "a header without a colon": HEALTH + b"nocolon\r\n\r\n",
    "an unknown coding": SEND + b"Transfer-Encoding: xchunked\r\n\r\n" + BODY,
    "identity": SEND + b"Transfer-Encoding: identity\r\n\r\n" + BODY,
    "chunked, then identity": SEND + b"Transfer-Encoding: chunked, identity\r\n\r\n" + BODY,
    "identity, then chunked": SEND + b"Transfer-Encoding: identity, chunked\r\n\r\n" + BODY,
    "gzip, then chunked": SEND + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + BODY,
    "chunked twice": SEND + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
    "chunked twice in one line": SEND + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + BODY,
    "chunked, and identity in a line of its own": SEND + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + BODY,
    "a space before the colon of a coding": SEND + b"Transfer-Encoding : chunked\r\n\r\n" + BODY,
    "a vertical tab before chunked": SEND + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + BODY,
    "chunked in quotes": SEND + b'Transfer-Encoding: "chunked"\r\n\r\n' + BODY,
    "chunked with a parameter": SEND + b"Transfer-Encoding: chunked;q=1\r\n\r\n" + BODY,
    "chunked in HTTP/1.0": SEND.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + BODY,
    "a negative chunk": CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n",
    "a chunk size with a plus": CHUNKED + b"+2\r\n{}\r\n0\r\n\r\n",
    "a chunk size with 0x": CHUNKED + b"0x2\r\n{}\r\n0\r\n\r\n",
    "a chunk size of other letters": CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n",
    "a chunk size that overflows": CHUNKED + b"ffffffffffffffff2\r\n{}\r\n0\r\n\r\n",
    "a chunk size that overflows to the right one": CHUNKED + b"10000000000000002\r\n{}\r\n0\r\n\r\n",
    "no chunk size": CHUNKED + b"\r\n{}\r\n0\r\n\r\n",
    "more data than the chunk has": CHUNKED + b"2\r\n{}XX0\r\n\r\n",
    "a bare LF behind a chunk size": CHUNKED + b"2\n{}\r\n0\r\n\r\n",
    "a bare CR behind a chunk size": CHUNKED + b"2\r{}\r\n0\r\n\r\n",
    "a bare LF behind a chunk": CHUNKED + b"2\r\n{}\n0\r\n\r\n",
    "a bare LF in a chunk extension": CHUNKED + b"2;a\nb\r\n{}\r\n0\r\n\r\n",
    "a bare CR in a chunk extension": CHUNKED + b"2;a\rb\r\n{}\r\n0\r\n\r\n",
    "a long chunk extension": CHUNKED + b"2;" + b"a" * 20_000 + b"\r\n{}\r\n0\r\n\r\n",
    "a bare LF in a trailer": CHUNKED + b"2\r\n{}\r\n0\r\nbad\n\r\n",
    "two hosts": HEALTH + b"Host: evil.example\r\n\r\n",
    "two equal hosts": HEALTH + HOST + b"\r\n",
    "a tunnel": b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "HTTP/2 by its name": HEALTH.replace(b"HTTP/1.1", b"HTTP/2.0") + b"\r\n",
    "HTTP/0.9": b"GET /-/health\r\n\r\n",
    "two spaces in the first line": b"GET  /-/health HTTP/1.1\r\n" + HOST + b"\r\n",
    "a space in the path": b"GET /-/hea lth HTTP/1.1\r\n" + HOST + b"\r\n",
    "tabs in the first line": b"GET\t/-/health\tHTTP/1.1\r\n" + HOST + b"\r\n",
    "a method that is no word": b"G@T /-/health HTTP/1.1\r\n" + HOST + b"\r\n",
    "a control character in the path": b"GET /-/he\x01alth HTTP/1.1\r\n" + HOST + b"\r\n",
    "a raw byte in the path": b"GET /-/he\xffalth HTTP/1.1\r\n" + HOST + b"\r\n",
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_one_refusal_and_the_end(served: Edge, redis_of_module: EmbeddedServer, raw: bytes) -> None:
    heard = speak(served, raw + NEXT)
    assert len(heard.statuses) == 1, heard.raw
    assert heard.statuses[0] in (400, 414, 431), heard.raw
    assert heard.closed
    nothing_smuggled(redis_of_module)


BOTH = {
    "length, then coding": SEND + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
    "coding, then length": SEND + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + BODY,
}


@pytest.mark.parametrize("raw", BOTH.values(), ids=BOTH.keys())
def test_a_length_beside_a_coding_ends_the_connection(served: Edge, redis_of_module: EmbeddedServer, raw: bytes) -> None:
    """RFC 9112, 6.1: it may be read by its coding alone, and then the connection must be closed."""
    heard = speak(served, raw + NEXT)
    assert (heard.statuses, heard.closed) == ([202], True)
    nothing_smuggled(redis_of_module)


def test_what_is_no_http_at_all(served: Edge) -> None:
    for raw in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0" * 100, b"SSH-2.0-x\r\n"):
        heard = speak(served, raw + NEXT)
        assert heard.closed and heard.statuses in ([], [400]), heard.raw


WHOLE = {
    "a line end that is a bare LF": HEALTH + b"X: a\n\r\n",
    "only bare LFs": b"GET /-/health HTTP/1.1\nHost: localhost\n\n",
    "a length twice": SEND + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "zeros before a length": SEND + b"Content-Length: 0002\r\n\r\n{}",
    "a coding in capitals": SEND + b"Transfer-Encoding: CHUNKED\r\n\r\n" + BODY,
    "a coding behind a tab": SEND + b"Transfer-Encoding:\tchunked\r\n\r\n" + BODY,
    "a chunk extension": CHUNKED + b"2;a=b\r\n{}\r\n0\r\n\r\n",
    "a trailer that is a header": CHUNKED + b"2\r\n{}\r\n0\r\nContent-Length: 5\r\nHost: evil.example\r\n\r\n",
    "empty lines before the first": b"\r\n\r\n" + HEALTH + b"\r\n",
    "an absolute path": b"GET http://evil.example/-/health HTTP/1.1\r\n" + HOST + b"\r\n",
    "an upgrade": HEALTH + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
}
"""What the standard lets a server take, and this one takes: it must end where every other reader sees its end."""


@pytest.mark.parametrize("raw", WHOLE.values(), ids=WHOLE.keys())
def test_what_is_taken_ends_where_it_should(served: Edge, raw: bytes) -> None:
    heard = speak(served, raw + HEALTH + b"Connection: close\r\n\r\n")
    assert heard.statuses in ([200, 200], [202, 200]), heard.raw
    assert heard.closed


@pytest.mark.parametrize(
    "raw",
    [
        HEALTH + b"Content-Length: 2\r\n\r\n{}",
        HEALTH + b"Transfer-Encoding: chunked\r\n\r\n" + BODY,
        b"GET /nowhere HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}",
        SEND.replace(b"localhost", b"evil.example") + b"Content-Length: 2\r\n\r\n{}",
    ],
)
def test_a_body_that_nobody_reads_ends_the_connection(served: Edge, redis_of_module: EmbeddedServer, raw: bytes) -> None:
    heard = speak(served, raw + NEXT)
    assert (len(heard.statuses), heard.closed) == (1, True), heard.raw
    nothing_smuggled(redis_of_module)


def test_http_1_0_is_answered(served: Edge) -> None:
    """Proxies speak it to what is behind them unless told otherwise."""
    heard = speak(served, b"GET /-/health HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert (heard.statuses, heard.closed) == ([200], True)
    assert speak(served, b"GET /-/health HTTP/1.0\r\n\r\n").statuses == [200], "a probe names no host"
    assert speak(served, b"GET /echo/a HTTP/1.0\r\n\r\n").statuses == [421]


def nothing_smuggled(server: EmbeddedServer) -> None:
    with redis_py.Redis.from_url(server.url) as redis:
        for name in redis.scan_iter("security:*:commands"):
            assert not [fields for _, fields in redis.xrange(name) if fields[b"key"] == b"smuggled"]
