//go:build unix && !linux && !race

package ioring

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const mapFlags = unix.MAP_ANON | unix.MAP_PRIVATE

// adviseHuge does nothing: only Linux takes the advice.
func adviseHuge([]byte) {}

// populatePages does nothing: only Linux has a call for it.
func populatePages([]byte) {}

// releasePages maps fresh pages over the old ones, because MADV_DONTNEED keeps
// the content on these systems.
func releasePages(b []byte) error {
	_, err := unix.MmapPtr(-1, 0, unsafe.Pointer(&b[0]), uintptr(len(b)),
		unix.PROT_READ|unix.PROT_WRITE, mapFlags|unix.MAP_FIXED)
	return err
}
