"""Requests: how each method is encoded, what a lost connection means for it, how its answer is read."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

import msgpack

from .errors import Error, ProtocolError

T = TypeVar("T")

Bytes = bytes | bytearray | memoryview | str
"""What is taken for keys and values; a str is its UTF-8."""

Pairs = Mapping[bytes, Bytes] | Mapping[str, Bytes] | Iterable[tuple[Bytes, Bytes]]
"""What mput takes: a dict, or pairs."""


class Nature(enum.Enum):
    READ = enum.auto()  # changes nothing: may be sent twice
    WRITE = enum.auto()  # changes keys: sent twice by a session only
    ONCE = enum.auto()  # about something else, or the connection: never sent twice
    DURABLE = enum.auto()  # sync: tells how far the session is durable; sent again by a session only


class Request(Generic[T]):
    """One request, from the call to its answer. Identity is what counts."""

    __slots__ = ("body", "nature", "read", "sure", "sync", "seq", "number", "tries", "end", "sent", "void", "done", "result", "error", "landed")  # fmt: skip

    def __init__(self, nature: Nature, read: Callable[[Any], T], method: str, *params: Any, sure: Any = None, sync: bool = False):
        self.body: bytes = msgpack.packb(method) + msgpack.packb(params)
        self.nature = nature
        self.read = read  # turns the answer's result into the caller's
        self.sure = sure  # (answer,) of a write that has but one unless it is refused
        self.sync = sync
        self.seq = 0  # order of submission
        self.number = 0  # in the session; 0: it has none
        self.tries = 0  # connections it was queued for
        self.end = 0  # where it ends in what was queued on the connection
        self.sent = False  # a connection had taken all of it
        self.void = False  # must not be sent again: refused, or given up before it was sent
        self.done = False  # answered, failed or given up
        self.result: T | None = None
        self.error: Error | None = None
        self.landed: Callable[[], None] | None = None  # called once when done

    def message(self, msgid: int) -> bytes:
        return b"\x94\x00" + msgpack.packb(msgid) + self.body  # type: ignore[no-any-return]

    def answer(self, result: Any) -> None:
        if self.done:
            return
        try:
            self.result = self.read(result)
        except (TypeError, ValueError, KeyError, AttributeError, ProtocolError):
            self.error = ProtocolError(f"{self.body[:16]!r} was answered with {result!r:.80}")
        self.finish()

    def fail(self, error: Error) -> None:
        if not self.done:
            self.error = error
            self.finish()

    def finish(self) -> None:
        self.done = True
        if self.landed is not None:
            self.landed()

    def value(self) -> T:
        """The answer of a request that is done, or its error."""
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


def data(b: Bytes) -> bytes:
    if isinstance(b, bytes):
        return b
    if isinstance(b, str):
        return b.encode()
    if isinstance(b, (bytearray, memoryview)):
        return bytes(b)
    raise TypeError(f"keys and values are bytes or str, not {type(b).__name__}")


def of(*types: type[Any]) -> Callable[[Any], Any]:
    def check(result: Any) -> Any:
        # bool is an int to Python, and not to the protocol
        if not isinstance(result, types) or (isinstance(result, bool) and bool not in types):
            raise ProtocolError
        return result

    return check


_bytes = of(bytes, type(None))
_bool = of(bool)
_bool_none = of(bool, type(None))
_int = of(int)
_int_none = of(int, type(None))
_dict = of(dict)
_any = of(object)


def options(**given: Any) -> list[dict[str, Any]]:
    """The parameter for options: those that were given, or none."""
    there = {name.rstrip("_"): value for name, value in given.items() if value is not None and value is not False}
    return [there] if there else []


Seconds = float | timedelta
"""How long a key has to live: seconds, or a timedelta."""


def _ms(ttl: Seconds | None) -> int | None:
    if ttl is None:
        return None
    seconds = ttl.total_seconds() if isinstance(ttl, timedelta) else ttl
    if not seconds > 0:
        raise ValueError(f"a time to live is above 0, not {seconds}")
    return max(1, round(seconds * 1000))


def ping() -> Request[str]:
    return Request(Nature.READ, of(str), "ping")


def get(key: Bytes) -> Request[bytes | None]:
    return Request(Nature.READ, _bytes, "get", data(key))


def exists(key: Bytes) -> Request[bool]:
    return Request(Nature.READ, _bool, "exists", data(key))


def put(key: Bytes, value: Bytes, if_absent: bool, if_present: bool, ttl: Seconds | None, sync: bool) -> Request[bool]:
    if if_absent and if_present:
        raise ValueError("if_absent and if_present exclude each other")
    condition = "absent" if if_absent else "present" if if_present else None
    sure = None if condition else (True,)
    return Request(Nature.WRITE, _bool, "put", data(key), data(value), *options(ttl=_ms(ttl), if_=condition, sync=sync), sure=sure, sync=sync)


def delete(key: Bytes, blind: bool, sync: bool) -> Request[bool | None]:
    return Request(Nature.WRITE, _bool_none, "del", data(key), *options(blind=blind, sync=sync), sure=(None,) if blind else None, sync=sync)


def cas(key: Bytes, old: Bytes | None, new: Bytes | None, ttl: Seconds | None, sync: bool) -> Request[bool]:
    was, becomes = (None if b is None else data(b) for b in (old, new))
    return Request(Nature.WRITE, _bool, "cas", data(key), was, becomes, *options(ttl=_ms(ttl), sync=sync), sync=sync)


def add(key: Bytes, delta: int, ttl: Seconds | None, sync: bool) -> Request[int]:
    return Request(Nature.WRITE, _int, "add", data(key), delta, *options(ttl=_ms(ttl), sync=sync), sync=sync)


def append(key: Bytes, tail: Bytes, sync: bool) -> Request[int]:
    return Request(Nature.WRITE, _int, "append", data(key), data(tail), *options(sync=sync), sync=sync)


def expire(key: Bytes, ttl: Seconds | None, sync: bool) -> Request[bool]:
    return Request(Nature.WRITE, _bool, "expire", data(key), _ms(ttl), *options(sync=sync), sync=sync)


def ttl(key: Bytes) -> Request[float | None]:
    def read(result: Any) -> float | None:
        left = _int_none(result)
        return None if left is None else math.inf if left < 0 else left / 1000

    return Request(Nature.READ, read, "ttl", data(key))


def mget(keys: Iterable[Bytes]) -> Request[list[bytes | None]]:
    wanted = [data(k) for k in keys]

    def read(result: Any) -> list[bytes | None]:
        if not isinstance(result, list) or len(result) != len(wanted):
            raise ProtocolError
        return [_bytes(v) for v in result]

    return Request(Nature.READ, read, "mget", wanted)


def mput(pairs: Pairs, ttl: Seconds | None, sync: bool) -> Request[int]:
    items = pairs.items() if isinstance(pairs, Mapping) else pairs
    all_ = [[data(k), data(v)] for k, v in items]
    return Request(Nature.WRITE, _int, "mput", all_, *options(ttl=_ms(ttl), sync=sync), sure=(len(all_),), sync=sync)


def mdelete(keys: Iterable[Bytes], blind: bool, sync: bool) -> Request[int | None]:
    wanted = [data(k) for k in keys]
    return Request(Nature.WRITE, _int_none, "mdel", wanted, *options(blind=blind, sync=sync), sure=(None,) if blind else None, sync=sync)


Page = tuple[list[Any], bytes | None]


@dataclass(frozen=True)
class Range:
    """Which keys a scan is about, in which direction."""

    prefix: Bytes = b""
    start: Bytes | None = None
    stop: Bytes | None = None
    reverse: bool = False


def _bound(key: Bytes | None) -> bytes | None:
    return None if key is None else data(key)


def scan(over: Range, keys: bool, count: int, cursor: bytes | None) -> Request[Page]:
    def read(result: Any) -> Page:
        following, entries = result
        if keys:
            return [of(bytes)(k) for k in entries], _bytes(following)
        return [(of(bytes)(k), of(bytes)(v)) for k, v in entries], _bytes(following)

    return Request(Nature.READ, read, "scan", *options(
        prefix=data(over.prefix) or None, from_=_bound(over.start), to=_bound(over.stop),
        count=count, cursor=cursor, keys=keys, reverse=over.reverse,
    ))  # fmt: skip


def length(exact: bool) -> Request[int]:
    return Request(Nature.READ, _int, "len", *options(exact=exact))


def sync() -> Request[int]:
    return Request(Nature.DURABLE, lambda r: int(r["durable"]), "sync")


def stats() -> Request[dict[str, Any]]:
    return Request(Nature.READ, _dict, "stats")


def health() -> Request[dict[str, Any]]:
    return Request(Nature.READ, _dict, "health")


def config(changes: Mapping[str, Any] | None) -> Request[dict[str, Any]]:
    if not changes:
        return Request(Nature.READ, _dict, "config")
    return Request(Nature.ONCE, _dict, "config", {"set": dict(changes)})


def anything(method: str, params: tuple[Any, ...]) -> Request[Any]:
    if method in ("put", "del", "cas", "add", "append", "mput", "mdel", "hello", "sync", "expire", "watch"):
        raise ValueError(f"{method} has a method of its own")
    return Request(Nature.ONCE, _any, method, *params)
