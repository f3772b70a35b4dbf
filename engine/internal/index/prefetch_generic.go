//go:build !amd64 && !arm64

package index

import (
	"sync/atomic"
	"unsafe"
)

// PrefetchLine does nothing on this processor: a load could not stand in for
// the hint, since p may be an address that is not mapped.
func PrefetchLine(unsafe.Pointer) {}

// PrefetchLines does nothing on this processor, for the same reason.
func PrefetchLines([]uintptr) {}

// prefetchBuckets loads a word of each bucket. The loads do not depend on each
// other, so the processor has several in flight.
func prefetchBuckets(table unsafe.Pointer, mask uint64, hashes *uint64, n int) {
	for _, hash := range unsafe.Slice(hashes, n) {
		atomic.LoadUint64((*uint64)(unsafe.Add(table, (hash&mask)<<bucketShift)))
	}
}
