package ioring

import (
	"fmt"
	"unsafe"
)

// CheckOp reports what breaks the rules of a device in a Read or Write, as an
// error that wraps ErrMisaligned.
func CheckOp(op *Op, align Align, segmentSize int64) error {
	n := int64(len(op.Buf))
	switch {
	case op.Off < 0 || n == 0 || op.Off > (1<<63-1)-segmentSize:
		return fmt.Errorf("%w: %d bytes at %d", ErrMisaligned, n, op.Off)
	case op.Off%int64(align.Offset) != 0 || n%int64(align.Offset) != 0:
		return fmt.Errorf("%w: %d bytes at %d, not multiples of %d", ErrMisaligned, n, op.Off, align.Offset)
	case uintptr(unsafe.Pointer(unsafe.SliceData(op.Buf)))%uintptr(align.Memory) != 0:
		return fmt.Errorf("%w: memory at %p, not a multiple of %d", ErrMisaligned, unsafe.SliceData(op.Buf), align.Memory)
	case op.Off&(segmentSize-1)+n > segmentSize:
		return fmt.Errorf("%w: %d bytes at %d cross the end of a segment", ErrMisaligned, n, op.Off)
	}
	return nil
}

// MustBeOps panics if an op has a kind that does not exist or no Done: these are
// bugs of the caller, not conditions that Err could report.
func MustBeOps(ops []*Op) {
	for _, op := range ops {
		if op.Done == nil || op.Kind < Read || op.Kind > Sync {
			panic(fmt.Sprintf("ioring: op of kind %d, Done set: %t", op.Kind, op.Done != nil))
		}
	}
}
