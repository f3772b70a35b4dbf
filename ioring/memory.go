package ioring

import (
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"unsafe"
)

// hugePage is the size of a transparent huge page on amd64, and on arm64 with
// 4 KiB pages. Aligned to it, the first bytes of a mapping are already huge.
const hugePage = 2 << 20

// Memory is one contiguous range of zeroed memory outside the Go heap: the
// garbage collector neither scans nor counts it. Pages are given by the system
// when they are first touched, so a reservation far larger than the machine's
// memory costs nothing but addresses.
//
// In builds with -race it lies on the Go heap, because the race detector sees
// only what lies there, and is aligned to 4 KiB instead of 2 MiB.
//
// A Memory has no lock: its owner sees to it that nobody touches a range while
// it is released, or anything after Free.
type Memory struct {
	bytes   []byte
	mapping mapping // what Free gives back; platform-dependent
}

// asked is OnMemory's; nil but in tests.
var asked atomic.Pointer[func(what string, size int64) error]

// OnMemory has ask decide about every AllocMemory ("reserve"), Release ("release")
// and Free ("free") of the process from now on: what it returns, unless nil, is
// what they fail with, as if the system had refused. It is for tests of what happens
// where memory is refused; nil ends it.
func OnMemory(ask func(what string, size int64) error) {
	if ask == nil {
		asked.Store(nil)
		return
	}
	asked.Store(&ask)
}

func askFor(what string, size int64) error {
	if ask := asked.Load(); ask != nil {
		return (*ask)(what, size)
	}
	return nil
}

// AllocMemory reserves size bytes, aligned to 2 MiB, preferably on huge pages.
func AllocMemory(size int64) (*Memory, error) {
	if size <= 0 || size > math.MaxInt64-hugePage || int64(int(size)) != size {
		return nil, fmt.Errorf("reserve memory: bad size %d", size)
	}
	err := askFor("reserve", size)
	var m mapping
	var bytes []byte
	if err == nil {
		m, bytes, err = newMapping(int(size))
	}
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of memory: %w", size, err)
	}
	return &Memory{bytes: bytes, mapping: m}, nil
}

// Bytes is the memory as a slice; it is dead after Free.
func (m *Memory) Bytes() []byte { return m.bytes }

// Pointer is the address of the first byte.
func (m *Memory) Pointer() unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(m.bytes)) }

// Size is the number of bytes reserved.
func (m *Memory) Size() int64 { return int64(len(m.bytes)) }

// Populate has the system give the pages of [off, off+length) now, whole pages of
// it at least, so that nobody waits at their first touch: for 2 MiB that is 0.2 ms,
// and 4 ms where a virtual machine has to ask its host. Others may use the range
// meanwhile. Systems that cannot do nothing: the touch then waits as ever.
func (m *Memory) Populate(off, length int64) {
	if off < 0 || length < 0 || off > m.Size()-length {
		panic(fmt.Sprintf("ioring: populate [%d, +%d) in %d bytes", off, length, m.Size()))
	}
	page := int64(os.Getpagesize())
	begin, end := off&^(page-1), min((off+length+page-1)&^(page-1), m.Size()&^(page-1))
	if begin < end {
		populatePages(m.bytes[begin:end])
	}
}

// Release gives the pages of [off, off+length) back to the system. The range
// stays usable and reads as zeros. Memory registered with a ring must not be
// released: the ring would go on using the old pages.
func (m *Memory) Release(off, length int64) error {
	if off < 0 || length < 0 || off > m.Size()-length {
		panic(fmt.Sprintf("ioring: release of [%d, +%d) in %d bytes", off, length, m.Size()))
	}
	if err := askFor("release", length); err != nil {
		return fmt.Errorf("release memory: %w", err)
	}
	part := m.bytes[off : off+length]
	// Only whole pages can be given back; the rest at both ends is cleared.
	page := uintptr(os.Getpagesize())
	begin := uintptr(unsafe.Pointer(unsafe.SliceData(part)))
	head := int(-begin & (page - 1))
	if head >= len(part) {
		clear(part)
		return nil
	}
	tail := len(part) - int((begin+uintptr(len(part)))&(page-1))
	if tail < head {
		tail = head
	}
	clear(part[:head])
	clear(part[tail:])
	if head == tail {
		return nil
	}
	if err := releasePages(part[head:tail]); err != nil {
		return fmt.Errorf("release memory: %w", err)
	}
	return nil
}

// Free gives everything back. The second call does nothing.
func (m *Memory) Free() error {
	if m.bytes == nil {
		return nil
	}
	err := askFor("free", m.Size())
	m.bytes = nil
	if err = errors.Join(err, m.mapping.free()); err != nil {
		return fmt.Errorf("free memory: %w", err)
	}
	return nil
}
