"""A watch without its input and output: what came, and where to go on after a lost connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgpack

from ._core import MAX_MESSAGE
from ._request import Nature, Request, of, options
from .errors import ConnectionLost, ProtocolError, refused


@dataclass(frozen=True)
class Change:
    """One step of a watch.

    "put": key has value now. "del": key is absent now. "commit": all changes up to here have come, and
    address is what watch(since=...) takes to go on from there.
    """

    op: Literal["put", "del", "commit"]
    address: int
    key: bytes = b""
    value: bytes | None = None


class Feed:
    def __init__(self, prefix: bytes, since: int | None) -> None:
        self.prefix = prefix
        self.at = since  # the last commit that came, or where to begin; None: now
        self.told = False  # that it has begun
        self.seen = -1  # address of the last change that came

    def begin(self) -> bytes:
        """The request that a new connection begins with."""
        self.unpacker = msgpack.Unpacker(max_buffer_size=2 * MAX_MESSAGE)
        given = {"prefix": self.prefix or None, "from": self.at}
        return Request(Nature.ONCE, of(int), "watch", *options(**given)).message(1)

    def take(self, received: bytes) -> list[Change]:
        """Takes bytes from the connection and returns what has not come before."""
        self.unpacker.feed(received)
        changes: list[Change] = []
        try:
            for message in self.unpacker:
                self._take(message, changes)
        except (msgpack.UnpackException, ValueError, TypeError) as e:
            raise ProtocolError(f"cannot read the daemon's answer: {e}") from e
        return changes

    def _take(self, message: Any, changes: list[Change]) -> None:
        match message:
            case [1, _, None, int(at)]:
                if not self.told:
                    self.told, self.at = True, at
                    changes.append(Change("commit", at))
            case [1, _, error, _]:
                raise refused(error)
            case [2, "change", [int(address), ("put" | "del") as op, bytes(key), value]]:
                if address > self.seen:  # else it came before the connection was lost
                    self.seen = address
                    changes.append(Change(op, address, key, value))
            case [2, "commit", [int(at)]]:
                if self.at is None or at > self.at:
                    self.at = at
                    changes.append(Change("commit", at))
            case [2, "lagged", _]:
                raise ConnectionLost("the watch fell behind")  # and goes on on the next one
            case [2, str(), list()]:
                pass  # of a later version
            case _:
                raise ProtocolError(f"not a message: {message!r:.80}")
