package engine

import (
	"errors"
	"fmt"

	"rskv/engine/internal/record"
	"rskv/ioring"
)

// Answers a caller acts on.
var (
	// ErrNotFound: the key is absent. Only the blocking methods return it; an
	// Op says it with Found.
	ErrNotFound = errors.New("key not found")
	// ErrNotInteger: OpAdd met a value that is not eight bytes long.
	ErrNotInteger = errors.New("value is not an eight-byte integer")
	// ErrOverflow: OpAdd would leave the range of int64; nothing was changed.
	ErrOverflow = errors.New("counter would overflow")
)

// Requests that cannot be carried out as they are.
var (
	ErrKeyEmpty      = errors.New("key is empty")
	ErrKeyTooLarge   = errors.New("key is too large")
	ErrValueTooLarge = errors.New("value is too large")
	ErrBadOp         = errors.New("unknown operation")
	// ErrBadTTL: a time to live is below 0 or above MaxTTL, or the operation has none.
	ErrBadTTL = errors.New("time to live is out of range")
)

// States of the store.
var (
	// ErrBusy: a budget is spent for the moment; try again.
	ErrBusy = errors.New("store is busy")
	// ErrDiskFull: there is no room for new log. Reads go on, and writes again
	// as soon as there is room.
	ErrDiskFull = errors.New("disk is full")

	errDeviceFull = fmt.Errorf("%w: the file system has no room for more log", ErrDiskFull)
	errBudgetFull = fmt.Errorf("%w: the disk budget is used up, and compaction makes no room", ErrDiskFull)

	// ErrReadOnly: an I/O error has made the store read-only. It wraps the
	// error that did it.
	ErrReadOnly = errors.New("store is read-only after an I/O error")
	// ErrIndexFull: the memory budget holds no more keys.
	ErrIndexFull = errors.New("index is full: the memory budget holds no more keys")
	// ErrClosed: the store has been closed.
	ErrClosed = errors.New("store is closed")
	// ErrCursor: a scan or a feed cannot go on where it stood: the place is of
	// another store, or compaction has passed it. Begin anew.
	ErrCursor = errors.New("cannot go on from there")
	// ErrIO: a read failed. It wraps the operating system's error.
	ErrIO = errors.New("I/O error")
)

// Errors of Open.
var (
	// ErrBadOptions: an option, or a setting changed later, is out of its range. The
	// message names all that are.
	ErrBadOptions = errors.New("bad options")
	// ErrMemoryTooSmall: the memory budget is below what this store needs.
	ErrMemoryTooSmall = errors.New("memory budget is too small")
	// ErrNotAStore: the directory holds something else.
	ErrNotAStore = errors.New("not an rskv store")
	// ErrFormat: the store was written by another format version.
	ErrFormat = errors.New("unknown format version")
	// ErrLocked: another process has the store open.
	ErrLocked = ioring.ErrLocked
	// ErrCorrupt matches every *CorruptError.
	ErrCorrupt = errors.New("data is damaged")
)

// CorruptError says where damage was found. Nothing that did not verify is ever
// returned as a value.
type CorruptError struct {
	Where string // what was being read
	Addr  int64  // byte address in the log; -1 when it is not in the log
	Err   error  // what was wrong, or nil
}

func (e *CorruptError) Error() string {
	s := "data is damaged: " + e.Where
	if e.Addr >= 0 {
		s += fmt.Sprintf(" at log address 0x%x", e.Addr)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *CorruptError) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrCorrupt) hold.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

func corrupt(where string, a record.Addr, err error) error {
	return &CorruptError{Where: where, Addr: a.Bytes(), Err: err}
}
