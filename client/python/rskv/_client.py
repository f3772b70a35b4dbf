"""The client for programs without an event loop."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from . import _request as requests
from ._core import Core, Loss, Options, Session, default_socket, naming, pauses
from ._request import Bytes, Pairs, Request, Seconds
from ._watch import Change, Feed
from .errors import Closed, ConnectionLost, Error, ShuttingDown

T = TypeVar("T")

READ_SIZE = 256 << 10
HELLO_MAX = 30.0  # seconds the daemon may take to greet: it may have to finish what the session had begun


class Client:
    """A connection to the daemon, which is made again when it is lost.

    Threads may share a Client: their calls take turns. Many requests at once are a pipeline(). A
    process that was forked gets a connection of its own, and no part in its parent's session.

    path: the daemon's socket; None: the default one.
    timeout: seconds a call waits for its answers before it raises TimeoutError; None: for ever.
    retry_for: seconds that calls wait for a lost connection to come back.
    session: True makes every write take effect exactly once as long as the Client lives; 16 bytes
        resume the session of a client that is gone. max_kept bounds the writes that are kept for that.
    name: what the daemon calls a client with a session in its logs.
    on_session_loss: called when a session cannot keep its promise, with a Loss.
    """

    def __init__(
        self,
        path: str | None = None,
        *,
        timeout: float | None = 30.0,
        retry_for: float = 5.0,
        session: bool | bytes = False,
        max_kept: int = 100_000,
        name: str = "",
        on_session_loss: Callable[[Loss], None] | None = None,
    ) -> None:
        self.path = path or default_socket()
        self.timeout = timeout
        self.retry_for = retry_for
        resume = session if isinstance(session, bytes) else None
        self._options = Options(bool(session), resume, name, max_kept, on_session_loss=on_session_loss)
        self._core = Core(self._options)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._down_since: float | None = None
        self._pid = os.getpid()
        try:
            self._open(self._deadline(timeout))
        except ConnectionLost as e:
            self.close()
            raise e.__cause__ or e from None  # FileNotFoundError says more than a lost connection

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection, and ends the promise of a session: sync() before it."""
        self._core.closed = True
        self._hang_up()
        self._core.refuse(Closed())

    @property
    def session(self) -> Session | None:
        """How far the session is; None without one."""
        return self._core.state()

    # One request.

    def ping(self) -> None:
        """Asks for a sign of life."""
        self._call(requests.ping())

    def get(self, key: Bytes) -> bytes | None:
        """The value of key, None if there is no such key."""
        return self._call(requests.get(key))

    def exists(self, key: Bytes) -> bool:
        """Whether there is such a key."""
        return self._call(requests.exists(key))

    def put(self, key: Bytes, value: Bytes, *, if_absent: bool = False, if_present: bool = False, ttl: Seconds | None = None, sync: bool = False) -> bool:
        """Stores value under key; False if the condition was not met. ttl: seconds to live, else
        for ever. sync: answered when on stable storage."""
        return self._call(requests.put(key, value, if_absent, if_present, ttl, sync))

    def delete(self, key: Bytes, *, blind: bool = False, sync: bool = False) -> bool | None:
        """Removes key; whether it was there. blind does not look, and answers None."""
        return self._call(requests.delete(key, blind, sync))

    def cas(self, key: Bytes, old: Bytes | None, new: Bytes | None, *, ttl: Seconds | None = None, sync: bool = False) -> bool:
        """Stores new if the value is old, and tells whether it was. None is an absent key."""
        return self._call(requests.cas(key, old, new, ttl, sync))

    def add(self, key: Bytes, delta: int = 1, *, ttl: Seconds | None = None, sync: bool = False) -> int:
        """Adds to the counter under key, 0 if it is absent, and returns the sum."""
        return self._call(requests.add(key, delta, ttl, sync))

    def append(self, key: Bytes, tail: Bytes, *, sync: bool = False) -> int:
        """Appends to the value of key, which may be absent, and returns the new length."""
        return self._call(requests.append(key, tail, sync))

    def expire(self, key: Bytes, ttl: Seconds, *, sync: bool = False) -> bool:
        """Gives key so many seconds to live from now on; False if there is no such key."""
        return self._call(requests.expire(key, ttl, sync))

    def persist(self, key: Bytes, *, sync: bool = False) -> bool:
        """Takes the expiry of key away; False if there is no such key."""
        return self._call(requests.expire(key, None, sync))

    def ttl(self, key: Bytes) -> float | None:
        """Seconds key has to live, math.inf without an expiry, None if there is no such key."""
        return self._call(requests.ttl(key))

    def mget(self, keys: Iterable[Bytes]) -> list[bytes | None]:
        """The values of keys in their order, None for what is not there."""
        return self._call(requests.mget(keys))

    def mput(self, pairs: Pairs, *, ttl: Seconds | None = None, sync: bool = False) -> int:
        """Stores pairs, each by itself and in order: no transaction. Returns how many."""
        return self._call(requests.mput(pairs, ttl, sync))

    def mdelete(self, keys: Iterable[Bytes], *, blind: bool = False, sync: bool = False) -> int | None:
        """Removes keys and returns how many were there. blind does not look, and answers None."""
        return self._call(requests.mdelete(keys, blind, sync))

    def len(self, *, exact: bool = False) -> int:
        """The number of keys, from counters or, exact, from a scan."""
        return self._call(requests.length(exact))

    def sync(self) -> int:
        """Returns when every earlier write of this client is on stable storage, with its number in the session."""
        return self._call(requests.sync())

    def stats(self) -> dict[str, Any]:
        """The daemon's counters."""
        return self._call(requests.stats())

    def health(self) -> dict[str, Any]:
        """Whether the store takes writes: "state" is "ok", "read only" or "disk full"."""
        return self._call(requests.health())

    def config(self, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The settings in force, after some changes."""
        return self._call(requests.config(changes))

    def call(self, method: str, *params: Any) -> Any:
        """Any other method of the protocol, such as call("checkpoint", {"kind": "log"})."""
        return self._call(requests.anything(method, params))

    def scan(
        self, prefix: Bytes = b"", *, start: Bytes | None = None, stop: Bytes | None = None, reverse: bool = False, count: int = 1000
    ) -> Iterator[tuple[bytes, bytes]]:
        """All keys that begin with prefix, with their values. Raises CursorLost if it is interrupted for too
        long: begin anew.

        A daemon with the ordered index (setting ordered) returns them in the order of the keys, from start
        on and below stop, the highest first if reverse. Without it there is no order, and these are a
        BadRequest."""
        return cast("Iterator[tuple[bytes, bytes]]", self._scan(requests.Range(prefix, start, stop, reverse), False, count))

    def scan_keys(
        self, prefix: Bytes = b"", *, start: Bytes | None = None, stop: Bytes | None = None, reverse: bool = False, count: int = 1000
    ) -> Iterator[bytes]:
        """scan without the values."""
        return cast("Iterator[bytes]", self._scan(requests.Range(prefix, start, stop, reverse), True, count))

    def _scan(self, over: requests.Range, keys: bool, count: int) -> Iterator[Any]:
        cursor: bytes | None = None
        while True:
            entries, cursor = self._call(requests.scan(over, keys, count, cursor))
            yield from entries
            if cursor is None:
                return

    def watch(self, prefix: Bytes = b"", *, since: int | None = None) -> Iterator[Change]:
        """What is changed of the keys that begin with prefix, commit by commit, until the loop is left.

        The first that comes is a "commit" with the address at which the watch begins: from now on, or
        since the address of a "commit" that came before. It has a connection of its own; if that is lost
        it goes on where it was: nothing comes twice and nothing is missing. It ends with CursorLost when
        the daemon has given back what was not told yet: begin anew, with a scan() behind the first commit.
        """
        feed = Feed(requests.data(prefix), since)
        while True:
            try:
                with self._dial_watch() as s:
                    s.sendall(feed.begin())
                    while received := s.recv(READ_SIZE):
                        yield from feed.take(received)
                    raise ConnectionLost("the daemon closed the connection")
            except (ConnectionLost, ShuttingDown, OSError):
                if self._core.closed:
                    return

    def _dial_watch(self) -> socket.socket:
        since = time.monotonic()
        for pause in pauses():
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                s.connect(self.path)
                return s
            except OSError as e:
                s.close()
                if time.monotonic() - since + pause >= self.retry_for or self._core.closed:
                    raise Error(f"no connection to {self.path}: {e}") from e
                time.sleep(pause)
        raise AssertionError("unreachable")

    # Many requests.

    def pipeline(self) -> Pipeline:
        """A list of requests that are sent together and waited for once: the fastest way to do many things."""
        return Pipeline(self)

    # The connection.

    def _call(self, r: Request[T]) -> T:
        self._carry([r])
        return r.value()

    def _carry(self, batch: list[Request[Any]]) -> None:
        """Sends requests and returns when all are done."""
        deadline = self._deadline(self.timeout)
        if self._pid != os.getpid():
            self._after_fork()
        with self._lock:
            for r in batch:
                try:
                    self._make_room(r, deadline)
                    self._core.submit(r)
                except Error as e:
                    r.fail(e)
            self._exchange(batch, deadline)

    def _make_room(self, r: Request[Any], deadline: float | None) -> None:
        """Waits until a session may keep one more write, if r is one."""
        while r.nature is requests.Nature.WRITE and self._core.over():
            sync = self._core.ask_sync()
            self._exchange([sync], deadline)
            sync.value()

    def _exchange(self, batch: list[Request[Any]], deadline: float | None) -> None:
        try:
            for r in batch:
                while not r.done:
                    self._step(deadline)
        except BaseException as e:
            for r in batch:
                self._core.give_up(r)
            if not isinstance(e, TimeoutError):  # interrupted, who knows where
                self._lose(e)
            raise

    def _step(self, deadline: float | None) -> None:
        try:
            if self._core.up:
                self._move(deadline)
            else:
                self._open(deadline)
        except TimeoutError:
            raise
        except (Error, OSError) as e:
            self._lose(e)

    def _move(self, deadline: float | None) -> None:
        """Gives the socket what it takes, waits until there is something, and takes that."""
        assert self._socket is not None
        out = self._core.out
        if out:
            try:
                self._core.sent(self._socket.send(out[:READ_SIZE]))
            except BlockingIOError:
                pass
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if out else 0))
        events = poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000)
        if not events:
            raise TimeoutError(f"no answer within {self.timeout} s")
        if events[0][1] & ~select.POLLOUT:
            received = self._socket.recv(READ_SIZE)
            if not received:
                raise ConnectionLost("the daemon closed the connection")
            self._core.feed(received)

    def _open(self, deadline: float | None) -> None:
        """Makes a connection, trying again for retry_for. When that is over, what is in flight fails,
        and each call tries once."""
        for pause in pauses():
            first = self._down_since is None
            try:
                self._connect(deadline)
                self._down_since = None
                return
            except (Error, OSError) as e:
                self._lose(e)
                now = time.monotonic()
                left = 0.0 if first or self._down_since is None else self._down_since + self.retry_for - now
                if left <= 0 or self._core.closed:
                    self._core.refuse(e)
                    raise ConnectionLost(f"no connection to {self.path}: {e}") from e
                if deadline is not None and now + pause > deadline:
                    raise TimeoutError(f"no answer within {self.timeout} s: {e}") from e
                time.sleep(min(pause, left))

    def _connect(self, deadline: float | None) -> None:
        if self._core.closed:
            raise Closed("the client is closed")
        self._hang_up()
        s = self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        s.settimeout(HELLO_MAX)
        try:
            s.connect(self.path)
        except OSError as e:
            raise naming(e, self.path) from None
        s.setblocking(False)
        self._core.greet()
        greeted = time.monotonic() + HELLO_MAX
        while not self._core.up:
            self._move(greeted if deadline is None else min(greeted, deadline))

    def _lose(self, cause: BaseException) -> None:
        self._hang_up()
        self._core.lost(cause)
        if self._down_since is None:
            self._down_since = time.monotonic()

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _after_fork(self) -> None:
        """The parent's connection is the parent's: this process gets one of its own."""
        self._hang_up()
        self._options.resume = None
        self._core, self._lock, self._pid = Core(self._options), threading.Lock(), os.getpid()

    def _deadline(self, timeout: float | None) -> float | None:
        return None if timeout is None else time.monotonic() + timeout


class Reply(Generic[T]):
    """The answer to a request of a Pipeline, there when that was executed."""

    def __init__(self, request: Request[T]) -> None:
        self._request = request

    @property
    def value(self) -> T:
        """The answer, or the request's own error raised."""
        if not self._request.done:
            raise RuntimeError("the pipeline has not been executed")
        return self._request.value()


class Pipeline:
    """Requests that are sent together. Each takes effect and fails by itself, those to one key in order.

    with client.pipeline() as p:
        for key in keys:
            p.get(key)
    p.results
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._requests: list[Request[Any]] = []
        self.results: list[Any] = []

    def __len__(self) -> int:
        return len(self._requests)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None and self._requests:  # else it was executed within
            self.execute()

    def execute(self, *, errors: bool = False) -> list[Any]:
        """Sends the requests and returns their answers in order, which stay in results. The first error
        is raised when all are answered; with errors they stand in the list, each in its place."""
        batch, self._requests = self._requests, []
        self.results = []
        if batch:
            self._client._carry(batch)
        self.results = [r.error if r.error is not None else r.result for r in batch]
        if not errors:
            for r in batch:
                r.value()
        return self.results

    def _add(self, r: Request[T]) -> Reply[T]:
        self._requests.append(r)
        return Reply(r)

    def get(self, key: Bytes) -> Reply[bytes | None]:
        return self._add(requests.get(key))

    def exists(self, key: Bytes) -> Reply[bool]:
        return self._add(requests.exists(key))

    def put(self, key: Bytes, value: Bytes, *, if_absent: bool = False, if_present: bool = False, ttl: Seconds | None = None, sync: bool = False) -> Reply[bool]:
        return self._add(requests.put(key, value, if_absent, if_present, ttl, sync))

    def delete(self, key: Bytes, *, blind: bool = False, sync: bool = False) -> Reply[bool | None]:
        return self._add(requests.delete(key, blind, sync))

    def cas(self, key: Bytes, old: Bytes | None, new: Bytes | None, *, ttl: Seconds | None = None, sync: bool = False) -> Reply[bool]:
        return self._add(requests.cas(key, old, new, ttl, sync))

    def add(self, key: Bytes, delta: int = 1, *, ttl: Seconds | None = None, sync: bool = False) -> Reply[int]:
        return self._add(requests.add(key, delta, ttl, sync))

    def append(self, key: Bytes, tail: Bytes, *, sync: bool = False) -> Reply[int]:
        return self._add(requests.append(key, tail, sync))

    def expire(self, key: Bytes, ttl: Seconds, *, sync: bool = False) -> Reply[bool]:
        return self._add(requests.expire(key, ttl, sync))

    def persist(self, key: Bytes, *, sync: bool = False) -> Reply[bool]:
        return self._add(requests.expire(key, None, sync))

    def ttl(self, key: Bytes) -> Reply[float | None]:
        return self._add(requests.ttl(key))

    def mget(self, keys: Iterable[Bytes]) -> Reply[list[bytes | None]]:
        return self._add(requests.mget(keys))

    def mput(self, pairs: Pairs, *, ttl: Seconds | None = None, sync: bool = False) -> Reply[int]:
        return self._add(requests.mput(pairs, ttl, sync))

    def mdelete(self, keys: Iterable[Bytes], *, blind: bool = False, sync: bool = False) -> Reply[int | None]:
        return self._add(requests.mdelete(keys, blind, sync))
