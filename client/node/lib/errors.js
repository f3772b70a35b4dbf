// What can go wrong: one class for each code of the daemon, and what the connection adds to them.

// RskvError is every error of this package.
export class RskvError extends Error {
  get name() {
    return this.constructor.name
  }
}

// Closed: the client was closed.
export class Closed extends RskvError {}

// ProtocolError: the daemon's answer is not what the protocol has for that method.
export class ProtocolError extends RskvError {}

// ConnectionLost: the request was not answered. Unless it is an AnswerLost, it has no effect.
export class ConnectionLost extends RskvError {}

// AnswerLost: the request was sent and its answer will not come: it may have taken effect or not.
export class AnswerLost extends ConnectionLost {}

// SessionLost: the session cannot be resumed; a write may have taken effect or not, or been undone.
export class SessionLost extends AnswerLost {}

// Refused: the daemon answered with an error: code to act on, message for people.
export class Refused extends RskvError {
  constructor(message = '', code = '') {
    super(message)
    this.code = code
  }
}

export class BadRequest extends Refused {}
export class UnknownMethod extends Refused {}
export class TooLarge extends Refused {} // one of the four below
export class KeyTooLarge extends TooLarge {}
export class ValueTooLarge extends TooLarge {}
export class RequestTooLarge extends TooLarge {}
export class AnswerTooLarge extends TooLarge {}
export class NotInteger extends Refused {}
export class Overflow extends Refused {}
export class Forbidden extends Refused {}
export class Busy extends Refused {}
export class DiskFull extends Refused {}
export class ReadOnly extends Refused {}
export class Corrupt extends Refused {}
export class IO extends Refused {}
export class SessionUnknown extends Refused {}
export class CursorLost extends Refused {}
export class ShuttingDown extends Refused {}
export class Internal extends Refused {}

// codes has the class of each code.
export const codes = new Map(
  [
    BadRequest, UnknownMethod, KeyTooLarge, ValueTooLarge, RequestTooLarge, AnswerTooLarge, NotInteger, Overflow, Forbidden,
    Busy, DiskFull, ReadOnly, Corrupt, IO, SessionUnknown, CursorLost, ShuttingDown, Internal,
  ].map((c) => [c.name, c]),
)

// refused makes an error of the one in an answer. A code that is not known here stays in its code.
export function refused(error) {
  if (Array.isArray(error) && error.length === 2 && error.every((e) => typeof e === 'string')) {
    const [code, message] = error
    return new (codes.get(code) ?? Refused)(message, code)
  }
  return new ProtocolError(`not an error of the protocol: ${JSON.stringify(error)}`)
}
