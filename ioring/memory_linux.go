//go:build linux && !race

package ioring

import "golang.org/x/sys/unix"

// mapFlags: without MAP_NORESERVE the kernel refuses a reservation larger than
// what it could ever fill.
const mapFlags = unix.MAP_ANON | unix.MAP_PRIVATE | unix.MAP_NORESERVE

// adviseHuge asks for huge pages. A kernel without them says EINVAL and small
// pages do as well, only slower (10-25 % on random access).
func adviseHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }

// populatePages faults the pages of b in, as if each were written to, in a system
// call, during which other goroutines have the processor. Kernels before 5.14 say
// EINVAL.
func populatePages(b []byte) { _ = unix.Madvise(b, unix.MADV_POPULATE_WRITE) }

// releasePages drops the pages of b at once; the next touch finds zeros.
func releasePages(b []byte) error { return unix.Madvise(b, unix.MADV_DONTNEED) }
