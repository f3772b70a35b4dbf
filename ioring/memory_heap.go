//go:build race || !unix

package ioring

import "unsafe"

// heapAlign suffices for O_DIRECT everywhere; more would only waste heap.
const heapAlign = 4096

// mapping is empty: the garbage collector frees the memory.
type mapping struct{}

func newMapping(size int) (mapping, []byte, error) {
	whole := make([]byte, size+heapAlign)
	skip := int(-uintptr(unsafe.Pointer(&whole[0])) & (heapAlign - 1))
	return mapping{}, whole[skip : skip+size : skip+size], nil
}

func (mapping) free() error { return nil }

// populatePages does nothing: the heap's pages come as they are touched.
func populatePages([]byte) {}

func releasePages(b []byte) error {
	clear(b)
	return nil
}
