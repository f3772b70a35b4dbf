"""The client for programs on asyncio.

    async with await rskv.aio.connect() as c:
        await c.put("key", b"value")
        values = await asyncio.gather(*(c.get(k) for k in keys))   # one write, one connection
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from . import _request as requests
from ._core import Core, Loss, Options, Session, default_socket, naming, pauses
from ._request import Bytes, Nature, Pairs, Request, Seconds
from ._watch import Change, Feed
from .errors import Closed, ConnectionLost, Error, ShuttingDown

T = TypeVar("T")

READ_SIZE = 256 << 10
HELLO_MAX = 30.0


async def connect(
    path: str | None = None,
    *,
    retry_for: float = 5.0,
    session: bool | bytes = False,
    max_kept: int = 100_000,
    name: str = "",
    on_session_loss: Callable[[Loss], None] | None = None,
) -> Client:
    """Connects to the daemon; see rskv.Client for the options. Bound the wait for an answer by asyncio.timeout."""
    resume = session if isinstance(session, bytes) else None
    c = Client(path or default_socket(), retry_for, Options(bool(session), resume, name, max_kept, on_session_loss=on_session_loss))
    try:
        await c._connect()
    except BaseException:
        await c.aclose()
        raise
    c._task = asyncio.create_task(c._run())
    return c


class Client:
    """A connection to the daemon, which is made again when it is lost. Made by connect().

    Requests of all tasks share it, and what they send within one turn of the loop is one write. A
    request whose task is cancelled may still take effect.
    """

    def __init__(self, path: str, retry_for: float, options: Options) -> None:
        self.path = path
        self.retry_for = retry_for
        self._core = Core(options)
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._flushing = False
        self._room = asyncio.Lock()
        self._refusing: BaseException | None = None  # there has been no connection for retry_for

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes the connection, and ends the promise of a session: sync() before it."""
        self._core.closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._hang_up()
        self._core.refuse(Closed())

    @property
    def session(self) -> Session | None:
        """How far the session is; None without one."""
        return self._core.state()

    async def ping(self) -> None:
        """Asks for a sign of life."""
        await self._call(requests.ping())

    async def get(self, key: Bytes) -> bytes | None:
        """The value of key, None if there is no such key."""
        return await self._call(requests.get(key))

    async def exists(self, key: Bytes) -> bool:
        """Whether there is such a key."""
        return await self._call(requests.exists(key))

    async def put(self, key: Bytes, value: Bytes, *, if_absent: bool = False, if_present: bool = False, ttl: Seconds | None = None, sync: bool = False) -> bool:
        """Stores value under key; False if the condition was not met. ttl: seconds to live, else
        for ever. sync: answered when on stable storage."""
        return await self._call(requests.put(key, value, if_absent, if_present, ttl, sync))

    async def delete(self, key: Bytes, *, blind: bool = False, sync: bool = False) -> bool | None:
        """Removes key; whether it was there. blind does not look, and answers None."""
        return await self._call(requests.delete(key, blind, sync))

    async def cas(self, key: Bytes, old: Bytes | None, new: Bytes | None, *, ttl: Seconds | None = None, sync: bool = False) -> bool:
        """Stores new if the value is old, and tells whether it was. None is an absent key."""
        return await self._call(requests.cas(key, old, new, ttl, sync))

    async def add(self, key: Bytes, delta: int = 1, *, ttl: Seconds | None = None, sync: bool = False) -> int:
        """Adds to the counter under key, 0 if it is absent, and returns the sum."""
        return await self._call(requests.add(key, delta, ttl, sync))

    async def append(self, key: Bytes, tail: Bytes, *, sync: bool = False) -> int:
        """Appends to the value of key, which may be absent, and returns the new length."""
        return await self._call(requests.append(key, tail, sync))

    async def expire(self, key: Bytes, ttl: Seconds, *, sync: bool = False) -> bool:
        """Gives key so many seconds to live from now on; False if there is no such key."""
        return await self._call(requests.expire(key, ttl, sync))

    async def persist(self, key: Bytes, *, sync: bool = False) -> bool:
        """Takes the expiry of key away; False if there is no such key."""
        return await self._call(requests.expire(key, None, sync))

    async def ttl(self, key: Bytes) -> float | None:
        """Seconds key has to live, math.inf without an expiry, None if there is no such key."""
        return await self._call(requests.ttl(key))

    async def mget(self, keys: Iterable[Bytes]) -> list[bytes | None]:
        """The values of keys in their order, None for what is not there."""
        return await self._call(requests.mget(keys))

    async def mput(self, pairs: Pairs, *, ttl: Seconds | None = None, sync: bool = False) -> int:
        """Stores pairs, each by itself and in order: no transaction. Returns how many."""
        return await self._call(requests.mput(pairs, ttl, sync))

    async def mdelete(self, keys: Iterable[Bytes], *, blind: bool = False, sync: bool = False) -> int | None:
        """Removes keys and returns how many were there. blind does not look, and answers None."""
        return await self._call(requests.mdelete(keys, blind, sync))

    async def len(self, *, exact: bool = False) -> int:
        """The number of keys, from counters or, exact, from a scan."""
        return await self._call(requests.length(exact))

    async def sync(self) -> int:
        """Returns when every earlier write of this client is on stable storage, with its number in the session."""
        return await self._call(requests.sync())

    async def stats(self) -> dict[str, Any]:
        """The daemon's counters."""
        return await self._call(requests.stats())

    async def health(self) -> dict[str, Any]:
        """Whether the store takes writes: "state" is "ok", "read only" or "disk full"."""
        return await self._call(requests.health())

    async def config(self, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The settings in force, after some changes."""
        return await self._call(requests.config(changes))

    async def call(self, method: str, *params: Any) -> Any:
        """Any other method of the protocol, such as call("checkpoint", {"kind": "log"})."""
        return await self._call(requests.anything(method, params))

    async def scan(
        self, prefix: Bytes = b"", *, start: Bytes | None = None, stop: Bytes | None = None, reverse: bool = False, count: int = 1000
    ) -> AsyncIterator[tuple[bytes, bytes]]:
        """All keys that begin with prefix, with their values. Raises CursorLost if it is interrupted for too
        long: begin anew.

        A daemon with the ordered index (setting ordered) returns them in the order of the keys, from start
        on and below stop, the highest first if reverse. Without it there is no order, and these are a
        BadRequest."""
        cursor: bytes | None = None
        over = requests.Range(prefix, start, stop, reverse)
        while True:
            entries, cursor = await self._call(requests.scan(over, False, count, cursor))
            for entry in entries:
                yield entry
            if cursor is None:
                return

    async def scan_keys(
        self, prefix: Bytes = b"", *, start: Bytes | None = None, stop: Bytes | None = None, reverse: bool = False, count: int = 1000
    ) -> AsyncIterator[bytes]:
        """scan without the values."""
        cursor: bytes | None = None
        over = requests.Range(prefix, start, stop, reverse)
        while True:
            entries, cursor = await self._call(requests.scan(over, True, count, cursor))
            for entry in entries:
                yield entry
            if cursor is None:
                return

    async def watch(self, prefix: Bytes = b"", *, since: int | None = None) -> AsyncIterator[Change]:
        """What is changed of the keys that begin with prefix; see rskv.Client.watch."""
        feed = Feed(requests.data(prefix), since)
        while True:
            reader, writer = await self._dial_watch()
            try:
                writer.write(feed.begin())
                while received := await reader.read(READ_SIZE):
                    for change in feed.take(received):
                        yield change
                raise ConnectionLost("the daemon closed the connection")
            except (ConnectionLost, ShuttingDown, OSError):
                if self._core.closed:
                    return
            finally:
                writer.close()

    async def _dial_watch(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        since = time.monotonic()
        for pause in pauses():
            try:
                return await asyncio.open_unix_connection(self.path, limit=READ_SIZE)
            except OSError as e:
                if time.monotonic() - since + pause >= self.retry_for or self._core.closed:
                    raise Error(f"no connection to {self.path}: {e}") from e
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    # The connection.

    async def _call(self, r: Request[T]) -> T:
        if self._refusing is not None:
            raise ConnectionLost(f"no connection to {self.path}: {self._refusing}")
        if r.nature is Nature.WRITE and self._core.over():
            await self._make_room()
        self._core.submit(r)
        await self._carry(r)
        return r.value()

    async def _make_room(self) -> None:
        """Waits until a session may keep one more write."""
        async with self._room:  # one sync serves all who wait
            while self._core.over():
                sync = self._core.ask_sync()
                await self._carry(sync)
                sync.value()

    async def _carry(self, r: Request[Any]) -> None:
        """Waits until a request that was submitted is done."""
        self._flush_soon()
        future = asyncio.get_running_loop().create_future()

        def landed() -> None:
            if not future.done():
                future.set_result(None)

        r.landed = landed
        try:
            await future
        except asyncio.CancelledError:
            self._core.give_up(r)
            raise

    def _flush_soon(self) -> None:
        if self._core.out and not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._writer is not None and self._core.out:
            self._writer.write(bytes(self._core.out))
            self._core.sent(len(self._core.out))

    async def _run(self) -> None:
        """Reads answers and looks after the connection until the client is closed."""
        while True:
            try:
                while True:
                    await self._receive()
            except (Error, OSError) as e:
                self._hang_up()
                self._core.lost(e)
                await self._again(e)

    async def _receive(self) -> None:
        assert self._reader is not None
        received = await self._reader.read(READ_SIZE)
        if not received:
            raise ConnectionLost("the daemon closed the connection")
        self._core.feed(received)
        self._flush_soon()

    async def _again(self, cause: BaseException) -> None:
        """Connects again, with growing pauses. After retry_for what is in flight fails, and what comes."""
        since = time.monotonic()
        for pause in pauses():
            left = since + self.retry_for - time.monotonic()
            if left <= 0:
                self._refusing = cause
                self._core.refuse(cause)
            await asyncio.sleep(min(pause, left) if left > 0 else pause)
            try:
                await self._connect()
                self._refusing = None
                return
            except (Error, OSError) as e:
                self._hang_up()
                self._core.lost(e)
                cause = e

    async def _connect(self) -> None:
        async with asyncio.timeout(HELLO_MAX):
            try:
                self._reader, self._writer = await asyncio.open_unix_connection(self.path, limit=READ_SIZE)
            except OSError as e:
                raise naming(e, self.path) from None
            self._core.greet()
            self._flush()
            while not self._core.up:
                await self._receive()
        self._flush()

    def _hang_up(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
