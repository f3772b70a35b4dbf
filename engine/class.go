package engine

import (
	"context"
	"errors"
)

// Class is what an error means for who gets it.
type Class uint8

const (
	// ClassFault: something has failed that neither another request nor waiting
	// mends: the disk, or a bug. It is the class of every error not known here.
	ClassFault Class = iota
	// ClassUser: what was asked for is at fault, and will be refused again.
	ClassUser
	// ClassRecoverable: the same request may succeed later.
	ClassRecoverable
	// ClassCorruption: data that was written does not verify. Nothing of it is
	// ever returned; other data is not concerned.
	ClassCorruption
)

var classNames = [...]string{"fault", "user", "recoverable", "corruption"}

// String returns the class's name.
func (c Class) String() string { return classNames[c] }

// classes is the one table of what errors mean. The first that matches counts: a
// read-only store's error wraps the one that made it so.
var classes = []struct {
	err   error
	class Class
}{
	{ErrReadOnly, ClassFault},
	{ErrCorrupt, ClassCorruption},
	{ErrBackup, ClassCorruption},
	{ErrBusy, ClassRecoverable},
	{ErrCompacting, ClassRecoverable},
	{ErrDiskFull, ClassRecoverable},
	{ErrIndexFull, ClassRecoverable}, // when there are fewer keys
	{ErrLocked, ClassRecoverable},
	{ErrCursor, ClassRecoverable}, // by a new scan
	{context.Canceled, ClassRecoverable},
	{context.DeadlineExceeded, ClassRecoverable},
	{ErrNotFound, ClassUser},
	{ErrNotInteger, ClassUser},
	{ErrOverflow, ClassUser},
	{ErrKeyEmpty, ClassUser},
	{ErrKeyTooLarge, ClassUser},
	{ErrValueTooLarge, ClassUser},
	{ErrBadOp, ClassUser},
	{ErrBadTTL, ClassUser},
	{ErrBadCheckpoint, ClassUser},
	{ErrLedgerUnknown, ClassUser},
	{ErrBadOptions, ClassUser},
	{ErrMemoryTooSmall, ClassUser},
	{ErrNotAStore, ClassUser},
	{ErrNotEmpty, ClassUser},
	{ErrFormat, ClassUser},
	{ErrNoTask, ClassUser},
	{ErrTaskFixed, ClassUser},
	{ErrClosed, ClassFault},
	{ErrIO, ClassFault},
}

// ClassOf returns what an error of this package, however wrapped, means. Of nil
// it has nothing to say.
func ClassOf(err error) Class {
	for _, c := range classes {
		if errors.Is(err, c.err) {
			return c.class
		}
	}
	return ClassFault
}

// IsUserError reports whether what was asked for is at fault.
func IsUserError(err error) bool { return err != nil && ClassOf(err) == ClassUser }

// IsRecoverable reports whether the same request may succeed later.
func IsRecoverable(err error) bool { return err != nil && ClassOf(err) == ClassRecoverable }

// IsCorruption reports whether data was found that does not verify.
func IsCorruption(err error) bool { return err != nil && ClassOf(err) == ClassCorruption }
