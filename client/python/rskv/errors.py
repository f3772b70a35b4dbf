"""What can go wrong: one class for each code of the daemon, and what the connection adds to them."""

from __future__ import annotations


class Error(Exception):
    """Every error of this package."""


class Closed(Error):
    """The client was closed."""


class ProtocolError(Error):
    """The daemon's answer is not what the protocol has for that method."""


class ConnectionLost(Error, ConnectionError):
    """The connection was lost and the request not answered. Unless it is an AnswerLost, it has no effect."""


class AnswerLost(ConnectionLost):
    """The request was sent and its answer will not come: it may have taken effect or not."""


class SessionLost(AnswerLost):
    """The session cannot be resumed: a write may have taken effect or not, and been undone since."""


class Refused(Error):
    """The daemon answered with an error: `code` to act on, `message` for people."""

    code = ""

    def __init__(self, message: str = "", code: str = "") -> None:
        self.code = code or type(self).code
        self.message = message
        super().__init__(f"{self.code}: {message}" if message else self.code)


class BadRequest(Refused):
    """Malformed, a wrong type, an unknown option."""


class UnknownMethod(Refused):
    """No such method in this daemon."""


class TooLarge(Refused):
    """Something is above its limit; one of the four below says what."""


class KeyTooLarge(TooLarge):
    """The key is above its limit."""


class ValueTooLarge(TooLarge):
    """The value is above its limit."""


class RequestTooLarge(TooLarge):
    """The request as a whole is above its limit; the daemon closes the connection."""


class AnswerTooLarge(TooLarge):
    """The answer would be above its limit: ask for fewer keys."""


class NotInteger(Refused):
    """add on a value that is not a counter."""


class Overflow(Refused):
    """add beyond 64 bits; the counter is unchanged."""


class Forbidden(Refused):
    """This process's user may not do that."""


class Busy(Refused):
    """A budget is spent: try again."""


class DiskFull(Refused):
    """Reads go on; writes do when there is room."""


class ReadOnly(Refused):
    """The store is read-only after an I/O error; reads go on."""


class Corrupt(Refused):
    """The record's checksum does not hold."""


class IO(Refused):
    """An I/O error."""


class SessionUnknown(Refused):
    """The daemon does not know the session any more."""


class CursorLost(Refused):
    """A scan took too long between two pages: begin a new one."""


class ShuttingDown(Refused):
    """The daemon is stopping."""


class Internal(Refused):
    """A bug in the daemon."""


CODES: dict[str, type[Refused]] = {}
for _class in (
    BadRequest, UnknownMethod, KeyTooLarge, ValueTooLarge, RequestTooLarge, AnswerTooLarge, NotInteger, Overflow,
    Forbidden, Busy, DiskFull, ReadOnly, Corrupt, IO, SessionUnknown, CursorLost, ShuttingDown, Internal,
):  # fmt: skip
    _class.code = _class.__name__
    CODES[_class.code] = _class


def refused(error: object) -> Error:
    """Makes an exception of the error in an answer. A code that is not known here stays in `code`."""
    match error:
        case [str(code), str(message)]:
            return CODES.get(code, Refused)(message, code)
    return ProtocolError(f"not an error of the protocol: {error!r}")
