"""Client of rskvd, a key-value daemon for the programs of one Linux machine.

    import rskv

    with rskv.Client() as c:
        c.put("greeting", "hello")
        c.get("greeting")                    # b"hello", None if absent
        c.add("visits")                      # 1
        with c.pipeline() as p:              # many requests, one round trip
            for i in range(1000):
                p.put(f"k{i}", b"v")
        c.put("session", "ada", ttl=1800)    # gone in half an hour
        for change in c.watch("user/"):      # what is changed, as it becomes durable
            print(change.op, change.key, change.value)

    with rskv.Client(session=True) as c:     # every write takes effect exactly once
        c.add("paid", 100)
        c.sync()

rskv.aio has the same for asyncio. Errors are classes: rskv.DiskFull, rskv.Busy, rskv.AnswerLost, ...

What a lost connection means: it is made again, with growing pauses. Requests that change nothing are
sent again; a write is only if it was not wholly sent, else it raises AnswerLost, because nobody knows
whether it took effect. With a session each write is kept until it is on stable storage, and sent again
after a lost connection or a crash of the daemon, from where the daemon says it got: it takes effect
once. Its answer may be lost all the same (AnswerLost), if there is more than one answer to it.
"""

from . import aio
from ._client import Client, Pipeline, Reply
from ._core import Loss, Session, default_socket
from ._watch import Change
from .errors import (
    IO,
    AnswerLost,
    AnswerTooLarge,
    BadRequest,
    Busy,
    Closed,
    ConnectionLost,
    Corrupt,
    CursorLost,
    DiskFull,
    Error,
    Forbidden,
    Internal,
    KeyTooLarge,
    NotInteger,
    Overflow,
    ProtocolError,
    ReadOnly,
    Refused,
    RequestTooLarge,
    SessionLost,
    SessionUnknown,
    ShuttingDown,
    TooLarge,
    UnknownMethod,
    ValueTooLarge,
)

__version__ = "0.1.0"
__all__ = [
    "Change", "Client", "Loss", "Pipeline", "Reply", "Session", "aio", "default_socket",
    "AnswerLost", "AnswerTooLarge", "BadRequest", "Busy", "Closed", "ConnectionLost", "Corrupt", "CursorLost",
    "DiskFull", "Error", "Forbidden", "IO", "Internal", "KeyTooLarge", "NotInteger", "Overflow", "ProtocolError",
    "ReadOnly", "Refused", "RequestTooLarge", "SessionLost", "SessionUnknown", "ShuttingDown", "TooLarge",
    "UnknownMethod", "ValueTooLarge",
]  # fmt: skip
