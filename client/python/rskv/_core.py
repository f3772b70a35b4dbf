"""The state of a client without its input and output, shared by both kinds of client.

What is in flight, what a session keeps, and what a lost connection means for each. The package's
documentation says what is promised; client/session.go in the repository explains the numbers:

       durable          applied            next
    1 ────┼────────────────┼─────────────────┼───→ numbers of writes
          │  in memory     │ on the wire, or │
    forgotten, kept here   │ not yet there   │
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgpack

from ._request import Nature, Request, of, sync
from .errors import AnswerLost, Closed, ConnectionLost, Error, ProtocolError, SessionLost, SessionUnknown, refused

MAX_MESSAGE = 64 << 20  # bytes; the protocol's limit of requests and answers
MAX_TRIES = 4  # connections that may be lost over a request before it is given up
MAX_ID = 2**32 - 1


@dataclass(frozen=True)
class Loss:
    """What a session could not keep."""

    session: bytes
    unconfirmed: int  # writes answered with success, or given up, that may be lost
    error: Error


@dataclass(frozen=True)
class Session:
    """How far a session is."""

    id: bytes
    written: int  # number of the last write that was made
    durable: int  # highest number known to be on stable storage
    applied: int  # highest number the daemon had when the connection was made


@dataclass
class Options:
    session: bool = False
    resume: bytes | None = None
    name: str = ""
    max_kept: int = 100_000
    max_kept_bytes: int = 64 << 20
    on_session_loss: Callable[[Loss], None] | None = None


class Core:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.out = bytearray()  # queued for the connection and not yet taken by the socket
        self.up = False  # the connection is there, and has been greeted
        self.closed = False
        self.inflight: dict[int, Request[Any]] = {}  # not done or not answered, by order of submission
        self.session = options.resume
        self.foreign = options.resume is not None  # begun by another client, and not resumed yet
        self.durable = 0
        self.applied = 0
        self.next = 1  # number of the write to come
        self.kept: dict[int, Request[Any]] = {}  # writes not known to be durable, by number
        self.kept_bytes = 0
        self._seq = 0
        self._syncing = False
        self._suspect = (0, 0)  # applied, and connections lost with the same first write behind it
        self._reset()

    # A connection's life: greet, feed and sent until it is lost, lost.

    def _reset(self) -> None:
        self.out.clear()
        self.up = False
        self._ids: dict[int, Request[Any]] = {}
        self._last_id = 1  # 1 is hello's
        self._queued = 0  # bytes, on this connection
        self._sent = 0
        self._unpacker = msgpack.Unpacker(max_buffer_size=2 * MAX_MESSAGE, unicode_errors="surrogateescape")

    def greet(self) -> None:
        """Begins a connection. It is up at once, or with the answer to hello."""
        self._reset()
        if not self.options.session:
            self._opened()
            return
        say: dict[str, Any] = {"protocol": 1}
        if self.options.name:
            say["client"] = self.options.name
        if self.session is not None:
            say["session"] = self.session
            if not self.foreign:
                say["seen"] = min((r.number for r in self.kept.values() if not r.done), default=self.next) - 1
        self.out += Request(Nature.ONCE, of(dict), "hello", say).message(1)
        self._queued = len(self.out)

    def sent(self, n: int) -> None:
        del self.out[:n]
        self._sent += n

    def feed(self, received: bytes) -> None:
        """Takes bytes from the connection. An error says that it is of no more use."""
        self._unpacker.feed(received)
        try:
            for message in self._unpacker:
                self._take(message)
        except (msgpack.UnpackException, ValueError, TypeError) as e:
            raise ProtocolError(f"cannot read the daemon's answer: {e}") from e

    def _take(self, message: Any) -> None:
        match message:
            case [1, int(msgid), error, result]:
                self._answered(msgid, error, result)
            case [2, "durable", [int(number)]]:
                self._became_durable(number)
            case [2, str(), list()]:
                pass  # of a later version
            case _:
                raise ProtocolError(f"not a message: {message!r:.80}")

    def _answered(self, msgid: int, error: Any, result: Any) -> None:
        if self.options.session and not self.up and msgid == 1:
            if error is not None:
                raise refused(error)
            self._greeted(result)
            return
        r = self._ids.pop(msgid, None)
        if r is None:
            raise refused(error) if msgid == 0 and error is not None else ProtocolError(f"answer to request {msgid}, which is not in flight")
        self.inflight.pop(r.seq, None)
        r.sent = True
        if error is not None:
            self._failed(r, refused(error))
        else:
            if r.nature is Nature.DURABLE and isinstance(result, dict):
                self._became_durable(result.get("durable", 0))
            elif r.sync and r.number:
                self._became_durable(r.number)
            r.answer(result)
        if r.nature is Nature.DURABLE:
            self._syncing = False

    def _failed(self, r: Request[Any], error: Error) -> None:
        if r.number:
            self._forget(r)
            r.void = True
            if r.done and r.error is None:  # answered with success, undone by a crash, and refused now
                self._tell(Loss(self.session or b"", 1, error))
        r.fail(error)

    def _became_durable(self, number: int) -> None:
        if not self.options.session:
            return
        if number >= self.next:
            raise ProtocolError(f"write {number} is durable, {self.next - 1} were made")
        self.durable = max(self.durable, number)
        while self.kept and (first := next(iter(self.kept))) <= number:
            self._forget(self.kept[first])

    def _forget(self, r: Request[Any]) -> None:
        if self.kept.pop(r.number, None) is not None:
            self.kept_bytes -= len(r.body)

    def lost(self, cause: BaseException) -> None:
        """Sorts out what was in flight on a connection that failed: what may be sent again stays."""
        self.up = False
        self._syncing = False
        if isinstance(cause, (SessionLost, SessionUnknown)):
            self._session_lost(cause)
        for r in list(self.inflight.values()):
            r.sent = r.sent or (r.end > 0 and r.end <= self._sent)
            r.end = 0
            if r.number or (self.options.session and r.nature is Nature.DURABLE):
                continue  # the next hello tells what became of it; a sync is asked for again behind it
            if r.sent and r.nature is not Nature.READ:
                self._drop(r, AnswerLost(f"connection lost, the request may have taken effect: {cause}"))
            elif r.tries >= MAX_TRIES:
                self._drop(r, ConnectionLost(f"connection lost {r.tries} times: {cause}"))

    def _drop(self, r: Request[Any], error: Error) -> None:
        self.inflight.pop(r.seq, None)
        r.fail(error)

    def refuse(self, cause: BaseException) -> None:
        """Fails everything in flight: there is no connection for too long, or the client is closed."""
        self._syncing = False
        for r in list(self.inflight.values()):
            if self.closed:
                error: Error = Closed("the client is closed")
            elif r.number and r.sent:  # it is kept, and takes effect at the latest when there is one again
                error = AnswerLost(f"no connection: {cause}")
            else:
                error = ConnectionLost(f"no connection: {cause}")
                r.void = True
            self._drop(r, error)

    def give_up(self, r: Request[Any]) -> None:
        """Says that nobody waits for a request any more. What was sent may still take effect."""
        if not r.done:
            if not self.up and not r.sent:
                self.inflight.pop(r.seq, None)
                r.void = True
            r.done = True
            r.error = AnswerLost("given up")

    # Requests.

    def submit(self, r: Request[Any]) -> None:
        if self.closed:
            raise Closed("the client is closed")
        if len(r.body) + 8 > MAX_MESSAGE:
            raise refused(["RequestTooLarge", f"request has {len(r.body) + 8} bytes, the limit is {MAX_MESSAGE}"])
        self._seq += 1
        r.seq = self._seq
        self.inflight[r.seq] = r
        if self.options.session and r.nature is Nature.WRITE:
            self._keep(r)
        if self.up:
            self._queue(r)
            if self.over(2) and not self._syncing:
                self.ask_sync()

    def _keep(self, r: Request[Any]) -> None:
        r.number = self.next
        self.next += 1
        self.kept[r.number] = r
        self.kept_bytes += len(r.body)

    def over(self, divisor: int = 1) -> bool:
        """Whether more is kept than there may be, divided by divisor."""
        return self.options.session and (
            len(self.kept) > self.options.max_kept // divisor or self.kept_bytes > self.options.max_kept_bytes // divisor
        )

    def ask_sync(self) -> Request[int]:
        r = sync()
        self._syncing = True
        self.submit(r)
        return r

    def _queue(self, r: Request[Any]) -> None:
        msgid = self._last_id % MAX_ID + 1
        while msgid in self._ids:
            msgid = msgid % MAX_ID + 1
        self._last_id = msgid
        self._ids[msgid] = r
        message = r.message(msgid)
        self.out += message
        self._queued += len(message)
        r.end = self._queued
        r.tries += 1

    # A session that comes back.

    def _opened(self) -> None:
        self.up = True
        for r in list(self.inflight.values()):
            self._queue(r)

    def _greeted(self, hello: Any) -> None:
        try:
            session, applied, durable = hello["session"], hello["applied"], hello["durable"]
            told = hello.get("refused")
            codes = None if told is None else {number: code for number, code in told}
            if not (isinstance(session, bytes) and len(session) == 16 and isinstance(applied, int) and 0 <= durable <= applied):
                raise ValueError("impossible numbers")
        except (TypeError, KeyError, ValueError, AttributeError) as e:
            raise ProtocolError(f"cannot read the answer to hello: {e}") from e
        known = self.session is not None and not self.foreign
        if self.session is not None and session != self.session:
            raise SessionLost("the daemon resumed another session")
        if known and durable < self.durable:
            raise SessionLost(f"writes up to {self.durable} were durable, now up to {durable}")
        if known and applied >= self.next:
            raise SessionLost(f"the daemon has {applied} writes of the session, {self.next - 1} were made")
        if self.session is None and applied > 0:
            raise ProtocolError(f"a new session has {applied} writes")
        unkept = self.foreign and durable < applied  # what the former client wrote is nobody's to send again
        self.session, self.foreign, self.applied = session, False, applied
        self._resume(applied, durable, codes)
        if unkept:
            self.ask_sync()

    def _resume(self, applied: int, durable: int, codes: dict[int, str] | None) -> None:
        """Goes on where the daemon says the session is, and queues what it does not have."""
        again = []
        first = True
        for r in list(self.kept.values()):
            if r.number <= applied:
                self._settle(r, durable, codes)
                if r.number <= durable:
                    self._forget(r)
                continue
            self._forget(r)
            if r.void:
                continue
            if first and r.sent and self._stuck(applied):
                self.inflight.pop(r.seq, None)
                if r.done:
                    self._tell(Loss(self.session or b"", 1, ConnectionLost("connections are lost over the write")))
                r.fail(ConnectionLost("connections are lost over the write"))
                self._suspect = (applied, 0)
                continue
            first = False
            again.append(r)
        self.durable = durable
        self.next = applied + 1
        self.up = True
        others = [r for r in self.inflight.values() if not r.number]
        for r in sorted(again + others, key=lambda r: r.seq):
            if r.number:
                self._keep(r)
            self._queue(r)
            self.inflight[r.seq] = r  # also one that was answered before: it is answered again

    def _settle(self, r: Request[Any], durable: int, codes: dict[int, str] | None) -> None:
        """Finds out the answer to a write that took effect, unless it is known."""
        code = (codes or {}).get(r.number)
        self.inflight.pop(r.seq, None)
        if code is not None:
            self._forget(r)
            r.fail(refused([code, "refused, the reason was lost with the connection"]))
        elif codes is not None and r.sure is not None and (not r.sync or r.number <= durable):
            r.answer(r.sure[0])
        else:
            r.fail(AnswerLost("connection lost, the write took effect unless it was refused"))

    def _stuck(self, applied: int) -> bool:
        """Whether the first write the daemon does not have has been on too many connections."""
        before, tries = self._suspect
        self._suspect = (applied, tries + 1 if before == applied else 1)
        return self._suspect[1] > MAX_TRIES

    def _session_lost(self, cause: Error) -> None:
        """Begins anew: what was sent and is not durable is uncertain for good, the rest goes on."""
        error = cause if isinstance(cause, SessionLost) else SessionLost(str(cause))
        unconfirmed = 0
        rest = []
        for r in list(self.kept.values()):
            self._forget(r)
            was_sent = r.sent or (r.end > 0 and r.end <= self._sent)
            if not r.done and not was_sent:
                rest.append(r)
            elif r.done and not r.void:
                unconfirmed += 1
                self.inflight.pop(r.seq, None)
            else:
                self._drop(r, error)
        for r in list(self.inflight.values()):  # in the next session a sync would answer for what is lost
            if r.nature is Nature.DURABLE:
                self._drop(r, error)
        loss = Loss(self.session or b"", unconfirmed, error)
        self.session, self.foreign, self.durable, self.applied, self.next = None, False, 0, 0, 1
        for r in rest:
            self._keep(r)
        self._tell(loss)

    def _tell(self, loss: Loss) -> None:
        if self.options.on_session_loss is not None:
            self.options.on_session_loss(loss)

    def state(self) -> Session | None:
        if not self.options.session or self.session is None:
            return None
        return Session(self.session, self.next - 1, self.durable, self.applied)


def pauses(first: float = 0.005, longest: float = 1.0) -> Iterator[float]:
    """Pauses between attempts to connect: each twice the one before it, less up to half at random."""
    pause = first
    while True:
        yield pause * random.uniform(0.5, 1)
        pause = min(2 * pause, longest)


def naming(e: OSError, path: str) -> OSError:
    """The error with the path in it, which the system leaves out for sockets."""
    return OSError(e.errno, e.strerror, path) if e.errno else e


def default_socket() -> str:
    """The path a daemon listens on unless it was told another: $RSKV_SOCKET, or a place of this user."""

    def directory(name: str) -> str:
        path = os.environ.get(name, "")
        return path if os.path.isabs(path) else ""

    if path := os.environ.get("RSKV_SOCKET"):
        return path
    if path := os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]:
        return os.path.join(path, "rskv.sock")
    if os.getuid() == 0:
        return "/run/rskv/rskv.sock"
    if path := directory("XDG_RUNTIME_DIR"):
        return os.path.join(path, "rskv", "rskv.sock")
    if path := directory("XDG_STATE_HOME"):
        return os.path.join(path, "rskv", "rskv.sock")
    if path := directory("HOME"):
        return os.path.join(path, ".local", "state", "rskv", "rskv.sock")
    return os.path.join(tempfile.gettempdir(), f"rskv-{os.getuid()}", "rskv.sock")

