//go:build amd64 || arm64

package index

import "unsafe"

// PrefetchLine asks the processor for the cache line at p. It is a hint: p may
// be any address, also one that is not mapped.
//
//go:noescape
func PrefetchLine(p unsafe.Pointer)

// PrefetchLines asks for the cache line at each of the addresses. They are
// numbers, not pointers, so that storing them costs no write barrier; like any
// hint they may be stale.
func PrefetchLines(lines []uintptr) {
	if len(lines) > 0 {
		prefetchLines(&lines[0], len(lines))
	}
}

//go:noescape
func prefetchLines(lines *uintptr, n int)

// prefetchBuckets asks for the buckets of n > 0 hashes. One call for a batch: a
// call for each, or plain loads in Go, gave half of the gain.
//
//go:noescape
func prefetchBuckets(table unsafe.Pointer, mask uint64, hashes *uint64, n int)
