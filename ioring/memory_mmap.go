//go:build unix && !race

package ioring

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is the whole anonymous mapping; the usable part is aligned inside it.
type mapping struct{ whole []byte }

// newMapping maps up to one huge page more than asked, so that an aligned range
// fits. The slack is never touched and costs addresses only.
func newMapping(size int) (mapping, []byte, error) {
	whole, err := unix.Mmap(-1, 0, size+hugePage, unix.PROT_READ|unix.PROT_WRITE, mapFlags)
	if err != nil {
		return mapping{}, nil, err
	}
	skip := int(-uintptr(unsafe.Pointer(&whole[0])) & (hugePage - 1))
	bytes := whole[skip : skip+size : skip+size]
	adviseHuge(bytes)
	return mapping{whole}, bytes, nil
}

func (m mapping) free() error { return unix.Munmap(m.whole) }
