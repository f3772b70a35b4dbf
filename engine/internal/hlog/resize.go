package hlog

import (
	"fmt"
	"unsafe"

	"rskv/ioring"
)

// limits are what follows from the number of frames. They are replaced as a whole
// by SetPages.
type limits struct {
	pages int    // frames that may be in use
	slack uint64 // frames kept free ahead of the tail
	roLag uint64 // pages that stay mutable behind the tail page
}

func newLimits(pages int) *limits {
	return &limits{pages: pages, slack: slackPages(pages), roLag: mutablePages(pages)}
}

// PagesMax is the largest number of frames of a log: what its table of frames
// holds. At 1 MiB a page it is 256 GiB.
const PagesMax = 1 << 18

// SetPages changes the number of frames while the log is in use. Fewer take
// effect as fast as the oldest pages can be flushed and let go; their memory goes
// back to the system. One caller at a time.
func (l *Log) SetPages(pages int) error {
	if pages < PagesMin || pages > PagesMax {
		return fmt.Errorf("log memory of %d pages: want %d to %d", pages, PagesMin, PagesMax)
	}
	if err := l.free.resize(pages, int64(l.pageSize)); err != nil {
		return fmt.Errorf("log memory of %d pages: %w", pages, err)
	}
	next := newLimits(pages)
	l.leastLag.Store(min(l.leastLag.Load(), next.roLag)) // before readOnly can follow
	l.limits.Store(next)
	page, _ := unpack(l.tail.Load())
	l.shiftReadOnly(l.mutableFrom(page))
	l.moveHead()
	l.space.broadcast()
	l.wake()
	return nil
}

// resize changes how many frames there may be. Missing ones are made at once,
// surplus ones go as they become free.
func (f *frameList) resize(pages int, pageSize int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit = pages
	for _, list := range []*[]unsafe.Pointer{&f.fresh, &f.frames} {
		for f.total > pages && len(*list) > 0 {
			f.parkLocked(pop(list))
		}
	}
	for f.total < pages && len(f.parked) > 0 {
		f.fresh = append(f.fresh, pop(&f.parked))
		f.total++
	}
	if missing := pages - f.total; missing > 0 {
		memory, err := ioring.AllocMemory(int64(missing) * pageSize)
		if err != nil {
			f.limit = f.total
			return err
		}
		f.addLocked(memory, missing, pageSize)
	}
	f.countLocked()
	return nil
}

// addLocked makes n frames of memory.
func (f *frameList) addLocked(memory *ioring.Memory, n int, pageSize int64) {
	f.blocks, f.pageSize = append(f.blocks, memory), pageSize
	for i := n - 1; i >= 0; i-- {
		f.fresh = append(f.fresh, unsafe.Add(memory.Pointer(), int64(i)*pageSize))
	}
	f.total += n
}

// parkLocked takes a frame out of use and gives its memory back.
func (f *frameList) parkLocked(p unsafe.Pointer) {
	memory, off := f.blockOf(p)
	// If the system does not take it, it is only not given back yet.
	_ = memory.Release(off, f.pageSize)
	f.parked = append(f.parked, p)
	f.total--
}

// close gives all memory back.
func (f *frameList) close() (err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range f.blocks {
		if e := m.Free(); e != nil && err == nil {
			err = e
		}
	}
	return err
}
