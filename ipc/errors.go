package ipc

import "errors"

// ErrAnyTooLarge matches, by errors.Is, every code that says something exceeds its limit.
var ErrAnyTooLarge = errors.New("too large")

// Code is the name of an error on the wire. It is an error itself, so that
// errors.Is(err, ipc.CodeBusy) holds for every *Error of that code. A code this version does not
// know travels unchanged.
type Code string

// The codes of the protocol.
const (
	CodeBadRequest      Code = "BadRequest"      // malformed, wrong type, unknown option
	CodeUnknownMethod   Code = "UnknownMethod"   // no such method
	CodeKeyTooLarge     Code = "KeyTooLarge"     // key above its limit
	CodeValueTooLarge   Code = "ValueTooLarge"   // value above its limit
	CodeRequestTooLarge Code = "RequestTooLarge" // request above its limit; the connection closes
	CodeAnswerTooLarge  Code = "AnswerTooLarge"  // the answer would be above its limit
	CodeNotInteger      Code = "NotInteger"      // add on a value that is not eight bytes
	CodeOverflow        Code = "Overflow"        // add beyond int64; unchanged
	CodeForbidden       Code = "Forbidden"       // this peer's role does not allow it
	CodeBusy            Code = "Busy"            // a budget is spent; try again
	CodeDiskFull        Code = "DiskFull"        // writes resume when there is room
	CodeReadOnly        Code = "ReadOnly"        // degraded after an I/O error: reads go on
	CodeCorrupt         Code = "Corrupt"         // the record's checksum does not hold
	CodeIO              Code = "IO"              // an I/O error
	CodeSessionUnknown  Code = "SessionUnknown"  // the daemon cannot know this session any more
	CodeCursorLost      Code = "CursorLost"      // a scan or a watch cannot go on from there: begin anew
	CodeShuttingDown    Code = "ShuttingDown"    // the daemon is stopping
	CodeInternal        Code = "Internal"        // a bug in the daemon
)

// Codes lists every code of the protocol.
var Codes = []Code{
	CodeBadRequest, CodeUnknownMethod, CodeKeyTooLarge, CodeValueTooLarge, CodeRequestTooLarge,
	CodeAnswerTooLarge, CodeNotInteger, CodeOverflow, CodeForbidden, CodeBusy, CodeDiskFull,
	CodeReadOnly, CodeCorrupt, CodeIO, CodeSessionUnknown, CodeCursorLost, CodeShuttingDown,
	CodeInternal,
}

// Error returns the code's name.
func (c Code) Error() string { return string(c) }

// Error is an error as it travels: a code to act on and a sentence for people.
type Error struct {
	Code    Code
	Message string
}

// Error returns "Code: message".
func (e *Error) Error() string {
	if e.Message == "" {
		return string(e.Code)
	}
	return string(e.Code) + ": " + e.Message
}

// Is reports whether target is ErrAnyTooLarge and c one of the codes it stands for.
func (c Code) Is(target error) bool {
	switch c {
	case CodeKeyTooLarge, CodeValueTooLarge, CodeRequestTooLarge, CodeAnswerTooLarge:
		return target == ErrAnyTooLarge
	}
	return false
}

// Unwrap returns the Code, so that errors.Is finds it.
func (e *Error) Unwrap() error { return e.Code }

// Is reports whether target is an *Error of the same code; an empty message in target matches any.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && (t.Message == "" || t.Message == e.Message)
}
