"""One connection, many callers, replies in order, and everything unanswered is sent again.

House rule: every call that goes over a wire is safe to resend (a read, or a script that recognises
itself). So a lost connection, a restarting or read-only server and a missing function library all
end the same way: connect anew, send what is unanswered byte for byte and in order, then what is new (P2).
redis-py has no connection that keeps this order across a reconnect, which is why it is done here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import hiredis

from statemq.errors import RedisAway, ServerError, UnsupportedServer
from statemq.store.address import Address
from statemq.store.dial import connect, dial
from statemq.store.unanswered import Call, Unanswered

Reply = Any
"""bytes, int, None, or a list of them."""


_MAY_NOT = ("failure in script", "The user executing the script")
"""What servers say of it behind an ERR; the second one is Redis 7.0."""


class ReplyError(ServerError):
    """The server answered a call with an error; ``word`` is its first word, or NOPERM for what this user may not do within a script."""

    def __init__(self, message: str) -> None:
        self.message = message
        self.word = "NOPERM" if any(said in message for said in _MAY_NOT) else message.split(" ", 1)[0]
        super().__init__(message)


AGAIN = frozenset(
    {"NOSCRIPT", "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "ASK", "BUSY", "NOREPLICAS", "MISCONF", "UNBLOCKED"}
)
"""Not executed: the connection is made anew, which also finds the new primary, and the call is sent again."""

DENIED = frozenset({"NOAUTH", "WRONGPASS", "NOPERM"})
MISSING = "Function not found"

BACKOFF_FIRST_S, BACKOFF_CAP_S = 0.02, 2.0

RESUBSCRIBE_S = 0.005
"""A subscription that was cut again and again is back after this, well within two looks of its peers."""

PING_S = 3.0
"""A subscription that was silent for so long asks for a sign: what stands between often cuts connections that carry nothing."""

PONG_S = 15.0
"""Then it counts as dead without an answer. Longer than any call may take: when a server stands still, who watches a life sign has lost
sight of it before the one who gives it makes it anew (P5)."""


_pack: Callable[[Any], bytes] = hiredis.pack_command
"""A tuple of bytes, texts and numbers as one RESP command."""


class Link(asyncio.Protocol):
    """One connection of a wire, which hears of it only while this is the wire's present one.

    What ends one that was given up may be told when the next one greets already: it would count as that one's loss, and a second
    connection would come about beside it, whose answers mix with its own (P2).
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._wire.link is self:
            self._wire.connection_made(transport)
        else:
            transport.close()

    def data_received(self, data: bytes) -> None:
        if self._wire.link is self:
            self._wire.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._wire.link is self:
            self._wire.connection_lost(exc)


class Wire:
    """A connection that comes back.

    ``timeout_s``: with calls unanswered and nothing heard for so long, the connection counts as dead.
    ``greet`` runs on each new connection before anything else (``hello`` sends its calls);
    ``on_push`` takes the messages of a subscribed connection; ``on_lost`` is told of each loss.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout_s: float = 5.0,
        greet: Callable[[Wire], Awaitable[None]] | None = None,
        on_push: Callable[[list[Any]], None] | None = None,
        on_lost: Callable[[], None] | None = None,
        on_moved: Callable[[bytes, asyncio.Future[Reply], str], None] | None = None,
    ) -> None:
        self.address, self.timeout_s = address, timeout_s
        self.generation = 0
        """Counts connections: equal before and after means the same connection."""
        self.up = False
        self.trouble: Exception | None = None
        """Why the last attempt to connect failed; None while connected."""
        self._greet, self._on_push, self._on_lost, self._on_moved = greet, on_push, on_lost, on_moved
        self._unanswered = Unanswered()
        self._unsent: list[bytes] = []
        self._hello: deque[asyncio.Future[Reply]] = deque()
        self.link = Link(self)
        """The connection that there is, or that is coming about."""
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._loop = asyncio.get_running_loop()
        self._flush_due = False
        self._closed = False
        self._lost = asyncio.Event()
        self._ready = asyncio.Event()
        self._moved = asyncio.Event()
        self._hurried = asyncio.Event()
        self._heard_s = 0.0
        self._by = 0
        """Which of its name's addresses is tried first."""
        self._failed = 0
        """Attempts in a row that have failed."""
        self._speaks_by_s: float | None = None
        """When another address gets its turn, unless the one that has taken the connection says something."""
        self._pinged_s = 0.0
        self._task: asyncio.Task[None] | None = None

    # -- for callers -------------------------------------------------------------------------------

    def open(self) -> Wire:
        """Starts connecting, in the background and for as long as the wire lives."""
        if self._task is None:
            self._task = self._forgettable(self._stay_connected())
        return self

    async def gives_up(self) -> None:
        """Returns when it was closed; raises what makes this server unusable."""
        if self._task is not None:
            await asyncio.wait([self._task])
        if (gave_up := self._gave_up()) is not None and not self._closed:
            raise gave_up

    async def connected(self, timeout_s: float) -> None:
        """Returns when the connection stands. Raises RedisAway after ``timeout_s``, or what the greeting found wrong."""
        self.open()
        ready = asyncio.ensure_future(self._ready.wait())
        waits: list[asyncio.Future[Any]] = [ready] if self._task is None else [ready, self._task]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if (gave_up := self._gave_up()) is not None:
            raise gave_up
        if not self.up:
            raise RedisAway(f"no Redis answers at {self.address} ({self.trouble or 'no answer'}); start one or give its URL")

    def call(self, *args: bytes | str | int | float) -> asyncio.Future[Reply]:
        """Sends one command; the future has its reply, or raises ReplyError. Calls of one loop turn share one write."""
        answer: asyncio.Future[Reply] = self._loop.create_future()
        self.resend(_pack(args), answer)
        return answer

    def resend(self, packed: bytes, answer: asyncio.Future[Reply]) -> None:
        """Takes over a packed call, from this or another wire."""
        if self._closed:
            _refuse(answer, RedisAway("the connection was closed"))
            return
        if (gave_up := self._gave_up()) is not None:
            _refuse(answer, gave_up)
            return
        if not self._unanswered:
            self._heard_s = self._loop.time()
        if not self.up:
            self._unanswered.waits(Call(packed, answer))
        else:
            self._unanswered.append(Call(packed, answer))
            self._unsent.append(packed)
            if not self._flush_due:
                self._flush_due = True
                self._loop.call_soon(self.flush)

    async def hello(self, *commands: tuple[bytes | str | int, ...]) -> list[Reply]:
        """For ``greet``: sends before everything that waits; error replies are returned as ReplyError values."""
        transport = self._greeting()
        answers = [self._loop.create_future() for _ in commands]
        self._hello.extend(answers)
        transport.write(b"".join(_pack(c) for c in commands))
        return list(await asyncio.gather(*answers, return_exceptions=True))

    def _greeting(self) -> asyncio.Transport:
        """The connection that greets; its loss may be known before the greeting has heard its last answer."""
        if self._transport is None:
            raise EOFError("the server closed the connection")
        return self._transport

    def _gave_up(self) -> BaseException | None:
        """Why this wire connects no more: the server cannot be used, or the wire was closed."""
        if self._task is None or not self._task.done():
            return None
        return RedisAway("the connection was closed") if self._task.cancelled() else self._task.exception()

    def reword(self, how: Callable[[bytes], bytes]) -> None:
        """For ``greet``: calls that wait to be sent again are worded anew; what they do is the same."""
        for call in self._unanswered:
            call.packed = how(call.packed)

    @property
    def idle(self) -> bool:
        return not self._unanswered

    @property
    def quiet_s(self) -> float:
        """For how long nothing was heard over it: since the last reply, or since the first call that still waits for one."""
        return self._loop.time() - self._heard_s

    def drop(self) -> None:
        """Gives up this connection; what is unanswered goes over the next one."""
        if self._transport is not None:
            self._transport.abort()

    def move(self, address: Address) -> None:
        """To another server from now on, with all that is unanswered."""
        if address != self.address:
            self.address = address
            self._moved.set()
            self._hurried.set()
            self.drop()

    def hurry(self) -> None:
        """If it waits before it tries to connect again, it tries now."""
        self._hurried.set()

    async def close(self) -> None:
        """Ends it; unanswered calls raise RedisAway."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        if self._transport is not None:
            self.flush()
            self._transport.close()
        self._fail(RedisAway("the connection was closed"))

    # -- connecting --------------------------------------------------------------------------------

    async def _stay_connected(self) -> None:
        wait_s, short = BACKOFF_FIRST_S, 0
        watch = self._forgettable(self._watch())
        try:
            while not self._closed:
                try:
                    await asyncio.wait_for(self._connect(), self.timeout_s)
                except UnsupportedServer as error:
                    self._fail(error)
                    raise
                except (OSError, EOFError, TimeoutError, ReplyError) as error:
                    self.trouble = error
                    self._by += 1
                    self._failed += 1
                    self.drop()
                    moved = await self._pause(wait_s)
                    wait_s = BACKOFF_FIRST_S if moved else min(BACKOFF_CAP_S, wait_s * 2)
                    continue
                if self._task is not None and self._task.cancelling():
                    return  # closed at this very moment: wait_for kept the cancellation for itself
                up_since = self._loop.time()
                await self._lost.wait()
                # connections that end at once, again and again, are paced like refused ones; the first time nothing may wait, and
                # a subscription never for long: one that is gone is a death sign (P5)
                short = 0 if self._loop.time() - up_since > 1 else short + 1
                wait_s = BACKOFF_FIRST_S if short <= 1 else min(BACKOFF_CAP_S, wait_s * 2)
                if self._on_push is not None:
                    wait_s = RESUBSCRIBE_S
                await self._pause(wait_s if short > 1 else 0)
        finally:
            if not self._loop.is_closed():
                watch.cancel()

    def _forgettable(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task that says nothing when a program ends without having closed its client: all that was to be kept is in Redis."""
        task = self._loop.create_task(work)
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        return task

    async def _pause(self, wait_s: float) -> bool:
        """So long, with jitter, or until there is another server to try; whether there is."""
        with contextlib.suppress(TimeoutError):
            if not self._moved.is_set():
                self._hurried.clear()
            await asyncio.wait_for(self._hurried.wait(), wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        moved = self._moved.is_set()
        self._moved.clear()
        return moved

    async def _connect(self) -> None:
        a = self.address
        self.link, self._transport = Link(self), None
        self._lost = asyncio.Event()
        self._reader = hiredis.Reader(replyError=ReplyError)
        self._hello.clear()
        await self._dial(a)
        async with asyncio.timeout_at(self._speaks_by_s):
            await self._log_in()
        if self._greet is not None:
            await self._greet(self)
        self._greeting()
        self.generation += 1
        self.up, self.trouble, self._failed = True, None, 0
        self._heard_s = self._loop.time()
        self._unanswered.sent()
        self._unsent = [c.packed for c in self._unanswered]  # P2: first what is unanswered, in its order
        self.flush()
        self._ready.set()

    async def _dial(self, a: Address) -> None:
        """``move`` ends it, since a host that has vanished may not even refuse."""
        dialing = self._loop.create_task(self._reach(a))
        moved = self._loop.create_task(self._moved.wait())
        try:
            await asyncio.wait([dialing, moved], return_when=asyncio.FIRST_COMPLETED)
        finally:
            moved.cancel()
            dialing.cancel()  # no effect if it has ended
        await asyncio.wait([dialing])  # it makes no link any more
        if not dialing.cancelled():
            dialing.result()
        if self._moved.is_set():  # also in the very turns in which the connection came about
            raise ConnectionError(f"{a.host}:{a.port} is left for another server")

    async def _reach(self, a: Address) -> None:
        """A new connection, by the address of its name that served last, or after a failure by the next one."""
        if a.path:
            self._speaks_by_s = None
            await self._loop.create_unix_connection(lambda: self.link, sock=await connect(socket.AF_UNIX, socket.SOCK_STREAM, 0, a.path))
            return
        sock, self._by, of = await dial(a.host, a.port, self._by)
        # silence is no sign of anything where there is one address, nor once each has had its turn
        self._speaks_by_s = self._loop.time() + self.timeout_s / (of + 1) if self._failed < of - 1 else None
        tls = a.ssl_context()
        try:
            async with asyncio.timeout_at(self._speaks_by_s):
                await self._loop.create_connection(lambda: self.link, sock=sock, ssl=tls, server_hostname=a.host if tls else None)
        except BaseException:
            sock.close()
            raise

    async def _log_in(self) -> None:
        a = self.address
        first: list[tuple[str, ...]] = []
        if a.password:
            first.append(("AUTH", a.username, a.password) if a.username else ("AUTH", a.password))
        if a.db:
            first.append(("SELECT", str(a.db)))
        first.append(("PING",))
        if a.sentinels is not None:
            first.append(("INFO", "replication"))
        replies = await self.hello(*first)
        if a.sentinels is not None and isinstance(role := replies.pop(), bytes) and b"role:master" not in role:
            raise ConnectionError(f"the server at {a.host}:{a.port} is no primary, though sentinels say so")
        for reply in replies:
            if isinstance(reply, ReplyError):
                if reply.word in DENIED or "AUTH" in reply.message:
                    raise UnsupportedServer(f"{a} does not let us in ({reply.word}); give user and password in the Redis URL")
                raise reply
            if isinstance(reply, BaseException):
                raise reply

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(1.0, self.timeout_s / 4))
            if not self.up or self._transport is None:
                continue
            now_s = self._loop.time()
            if self._unanswered and now_s - self._heard_s > self.timeout_s:
                self.drop()  # a black hole: no FIN and no RST will tell
            elif self._on_push is not None and now_s - self._heard_s > PING_S:
                if self._pinged_s <= self._heard_s:
                    self._pinged_s = now_s
                    self._transport.write(_pack(("PING",)))  # nobody waits for its answer
                elif now_s - self._pinged_s > PONG_S:
                    self.drop()

    # -- the protocol ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        _keep_alive(transport.get_extra_info("socket"))

    def connection_lost(self, exc: Exception | None) -> None:
        was_up, self.up, self._transport = self.up, False, None
        self._ready.clear()
        self._unsent.clear()
        for answer in self._hello:
            if not answer.done():
                answer.set_exception(EOFError("the server closed the connection"))
        self._hello.clear()
        self._lost.set()
        if was_up and self._on_lost is not None:
            self._on_lost()

    def data_received(self, data: bytes) -> None:
        try:
            self._received(data)
        except hiredis.ProtocolError:
            self._no_redis()

    def _received(self, data: bytes) -> None:
        self._heard_s = self._loop.time()
        self._reader.feed(data)
        gets, unanswered = self._reader.gets, self._unanswered
        while (reply := gets()) is not False:
            if self._hello:
                answer = self._hello.popleft()
                if not answer.done():
                    answer.set_exception(reply) if isinstance(reply, ReplyError) else answer.set_result(reply)
            elif self._on_push is not None and type(reply) is list:
                self._on_push(reply)
            elif unanswered:
                if type(reply) is ReplyError:
                    if reply.word == "MOVED" and self._on_moved is not None:
                        call = unanswered.popleft()
                        self._on_moved(call.packed, call.answer, reply.message)
                        continue
                    if reply.word in AGAIN or MISSING in reply.message:
                        self._again(reply)
                        return
                answer = unanswered.popleft().answer
                if not answer.done():
                    answer.set_exception(reply) if type(reply) is ReplyError else answer.set_result(reply)
            elif isinstance(reply, ReplyError):
                self.trouble = reply
                self.drop()
                return

    def _no_redis(self) -> None:
        self.trouble = ConnectionError("what answers there does not speak Redis's protocol")
        for answer in self._hello:
            if not answer.done():
                answer.set_exception(self.trouble)
        self._hello.clear()
        self.drop()

    def _again(self, error: ReplyError) -> None:
        """This reply means "not executed": the call keeps its place and goes over the next connection."""
        self.trouble = error
        self.drop()

    def flush(self) -> None:
        """Writes now what would be written at the end of this turn."""
        self._flush_due = False
        if self._unsent and self._transport is not None:
            self._transport.write(b"".join(self._unsent))
            self._unsent.clear()

    def _fail(self, error: Exception) -> None:
        while self._unanswered:
            answer = self._unanswered.popleft().answer
            if not answer.done():
                _refuse(answer, error)


def _keep_alive(connection: socket.socket | None) -> None:
    """A host that vanished is noticed also by who only listens."""
    if connection is not None and connection.family != getattr(socket, "AF_UNIX", None):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _refuse(answer: asyncio.Future[Reply], error: BaseException) -> None:
    """Raises in who waits; where nobody does any more, at an end, nobody has to be told."""
    answer.set_exception(error)
    answer.exception()


def refused(error: BaseException) -> asyncio.Future[Reply]:
    """The answer to a call that was not even sent."""
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    _refuse(answer, error)
    return answer


def swallow(futures: Iterable[asyncio.Future[Any]]) -> None:
    """Marks failures as seen where the caller learns of them by another way."""
    for future in futures:
        future.add_done_callback(lambda f: f.cancelled() or f.exception())
