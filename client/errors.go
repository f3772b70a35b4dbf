package client

import (
	"errors"

	"rskv/ipc"
)

// Error is an error that the daemon answered with: a Code and a sentence. errors.Is matches it with
// the sentinel of its code.
type Error = ipc.Error

// Answers a caller acts on, for errors.Is.
var (
	// ErrNotFound says that there is no such key.
	ErrNotFound = errors.New("key not found")
	// ErrClosed says that the Client was closed.
	ErrClosed = errors.New("client is closed")
	// ErrConnLost says that the connection was lost and the request not answered.
	ErrConnLost = errors.New("connection lost")
	// ErrAnswerLost says that the request was sent and its answer will not come: it may have taken
	// effect or not. Such an error is an ErrConnLost too.
	ErrAnswerLost = errors.New("answer lost, the request may have taken effect")
	// ErrSessionLost says that the session cannot be resumed. A write whose error is this one too may
	// have taken effect or not, and may have been undone since.
	ErrSessionLost = errors.New("session lost")
	// ErrProtocol says that the daemon's answer is not what the protocol has for that method.
	ErrProtocol = errors.New("unexpected answer")
)

// The daemon's errors, for errors.Is. ErrTooLarge matches any of the four below it.
var (
	ErrTooLarge        error = ipc.ErrAnyTooLarge
	ErrKeyTooLarge     error = ipc.CodeKeyTooLarge
	ErrValueTooLarge   error = ipc.CodeValueTooLarge
	ErrRequestTooLarge error = ipc.CodeRequestTooLarge
	ErrAnswerTooLarge  error = ipc.CodeAnswerTooLarge

	ErrBadRequest     error = ipc.CodeBadRequest
	ErrUnknownMethod  error = ipc.CodeUnknownMethod
	ErrNotInteger     error = ipc.CodeNotInteger
	ErrOverflow       error = ipc.CodeOverflow
	ErrForbidden      error = ipc.CodeForbidden
	ErrBusy           error = ipc.CodeBusy
	ErrDiskFull       error = ipc.CodeDiskFull
	ErrReadOnly       error = ipc.CodeReadOnly
	ErrCorrupt        error = ipc.CodeCorrupt
	ErrIO             error = ipc.CodeIO
	ErrSessionUnknown error = ipc.CodeSessionUnknown
	ErrCursorLost     error = ipc.CodeCursorLost
	ErrShuttingDown   error = ipc.CodeShuttingDown
	ErrInternal       error = ipc.CodeInternal
)

// lostError is a lost connection as one request saw it.
type lostError struct {
	sent  bool  // the request was wholly sent
	cause error // what ended the connection, or kept a new one from coming up
}

func (e *lostError) Error() string {
	text := ErrConnLost.Error()
	if e.sent {
		text += ", " + ErrAnswerLost.Error()
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

func (e *lostError) Is(target error) bool {
	return target == ErrConnLost || target == ErrAnswerLost && e.sent
}

func (e *lostError) Unwrap() error { return e.cause }
