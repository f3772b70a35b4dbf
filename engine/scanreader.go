package engine

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"rskv/engine/internal/epoch"
	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// scanReader reads the log for a scan or a feed, in windows:
//
//	page    |              |  64 KiB  |    128 KiB    |  rest of the page |
//	next pages, whole      |                          |                   |
//
// The first windows are small, since a scan may want a few records only. From the
// first whole page on, the page behind is read ahead. What is in memory is copied
// from there.
type scanReader struct {
	s      *Store
	spans  []manifest.Span // what is left, all closed
	memory *ioring.Memory
	epoch  *epoch.Slot // to look at the log's memory
	slots  []scanWindow
	slot   int         // of the present window
	size   int64       // of the next window in bytes
	most   int64       // largest window in bytes: holds any record
	page   record.Addr // units of a page
}

// scanWindow is a read of a part of a page.
type scanWindow struct {
	ioring.Op
	done       chan struct{} // closed when the read has answered; nil: none
	base, stop record.Addr
	from       record.Addr // what was asked for; behind it all is of one span
	seed       record.Seed // of that
	ready      bool        // it is known to have answered, without an error
	copied     bool        // it comes from memory
}

const (
	// scanWindowMin is the first window in bytes.
	scanWindowMin = 64 << 10
	// tailWindow is the largest window in bytes of a reader at the end of the log.
	tailWindow = pageSizeMin
	// copyPiece is how many bytes of the log's memory are copied in one section.
	copyPiece = 64 << 10
)

// newScanReader returns a reader of closed spans. ahead: much will be read, from
// the first window on.
func (s *Store) newScanReader(spans []manifest.Span, ahead bool) (*scanReader, error) {
	r := &scanReader{s: s, spans: spans, size: scanWindowMin, most: int64(s.opt.PageSize), slots: make([]scanWindow, 2)}
	if ahead {
		r.size = r.most
	}
	return r, r.alloc()
}

// newTailReader returns a reader for what has been committed just now: it takes
// little memory and reads nothing ahead.
func (s *Store) newTailReader(spans []manifest.Span) (*scanReader, error) {
	r := &scanReader{s: s, spans: spans, size: scanWindowMin, most: tailWindow, slots: make([]scanWindow, 1)}
	return r, r.alloc()
}

func (r *scanReader) alloc() (err error) {
	r.page = record.Addr(r.s.opt.PageSize / record.Unit)
	size := int64(len(r.slots)) * r.room()
	if r.memory = r.s.scanSpare.take(size); r.memory == nil {
		if r.memory, err = ioring.AllocMemory(size); err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	}
	r.epoch = r.s.epoch.Register()
	return nil
}

// room is what a slot takes in bytes: a window may begin up to a sector early.
func (r *scanReader) room() int64 {
	if r.most == int64(r.s.opt.PageSize) {
		return r.most // no window crosses a page
	}
	return r.most + r.s.align
}

// close waits for reads under way and frees the memory.
func (r *scanReader) close() {
	r.epoch.Release()
	for i := range r.slots {
		if d := r.slots[i].done; d != nil {
			r.s.opt.Runner.Wait(d)
		}
	}
	if other := r.s.scanSpare.keep(r.memory); other != nil {
		_ = other.Free() // it was only read into
	}
}

// spareMemory is the memory of a reader that has ended, for the next one: a scan that
// is asked for page by page would have the system give and zero it for each.
type spareMemory struct {
	mu     sync.Mutex
	memory *ioring.Memory // nil: none; guarded by mu
	closed bool           // nothing is kept any more; guarded by mu
}

// take returns the memory kept, if it has this size; else nil.
func (m *spareMemory) take(size int64) (memory *ioring.Memory) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.memory != nil && m.memory.Size() == size {
		memory, m.memory = m.memory, nil
	}
	return memory
}

// keep takes memory over, and returns what is to be given back instead; nil: nothing.
func (m *spareMemory) keep(memory *ioring.Memory) (other *ioring.Memory) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return memory
	}
	other, m.memory = m.memory, memory
	return other
}

// close gives back what is kept, and keeps nothing from now on.
func (m *spareMemory) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	if m.memory == nil {
		return nil
	}
	return m.memory.Free()
}

// extend lets the span that is being written end later. It returns false if that
// was not there yet when the reader was made.
func (r *scanReader) extend(end record.Addr) bool {
	n := len(r.spans)
	if n == 0 || r.spans[n-1].Start != r.s.spans[len(r.s.spans)-1].start {
		return false
	}
	r.spans[n-1].End = end
	return true
}

// next returns the record at or behind a; ok is false at the end. Its image is
// valid until the next call.
func (r *scanReader) next(a record.Addr, to *logRecord) (ok bool, err error) {
	if r.here(a, to) {
		return true, nil
	}
	for len(r.spans) > 1 && a >= r.spans[0].End {
		r.spans = r.spans[1:]
	}
	if len(r.spans) == 0 || a >= r.spans[0].End {
		return false, nil
	}
	a = max(a, r.spans[0].Start)
	for whole := false; ; whole = true {
		w, err := r.window(a, whole)
		if err == nil {
			err = w.take(a, r.page, r.s.seedAt(a), to)
			if err == errRecordLength && !whole {
				continue // read up to the end of the page
			}
		}
		if err != nil {
			return false, r.failed(a, err)
		}
		return true, nil
	}
}

// here is next for a record that is whole in the present window: then what was
// returned before from it stays valid. False says nothing.
func (r *scanReader) here(a record.Addr, to *logRecord) bool {
	w := &r.slots[r.slot]
	return w.ready && a >= w.from && a < w.stop && w.take(a, r.page, w.seed, to) == nil
}

// take returns the record at a, which the window holds at least the words of. What
// was copied from memory is what a get would be answered from, and is not compared
// with its checksum.
func (w *scanWindow) take(a, page record.Addr, seed record.Seed, to *logRecord) error {
	buf := w.Buf[(a-w.base)*record.Unit:]
	if w.copied {
		record.Unmark(buf)
	}
	w0, w1 := record.Words(buf)
	size := record.Size(w0, w1)
	if size > len(buf) {
		return errRecordLength
	}
	buf = buf[:size]
	if !w.copied {
		if _, _, ok := record.Verify(buf, seed, a); !ok {
			return errChecksum
		}
	}
	isPage := record.KindOf(w1) == record.System && record.KeyLen(w0) == record.TypePage
	if isPage != (a&(page-1) == 0) {
		return errNoHeader
	}
	to.addr, to.w0, to.w1, to.image = a, w0, w1, buf
	return nil
}

// failed says what it means that the record at a could not be had: what compaction
// has freed meanwhile is no damage.
func (r *scanReader) failed(a record.Addr, err error) error {
	switch {
	case errors.Is(err, ioring.ErrClosed) || r.s.closed.Load():
		return ErrClosed
	case a < r.s.log.Begin():
		return fmt.Errorf("%w: compaction has passed log address %v", ErrCursor, a)
	case errors.Is(err, errChecksum), errors.Is(err, errNoHeader), errors.Is(err, errRecordLength), errors.Is(err, ioring.ErrNoSegment):
		return corrupt("log", a, err)
	}
	return fmt.Errorf("%w: read of log address %v: %w", ErrIO, a, err)
}

// window returns a window that holds at least the words of the record at a, and
// all of it if whole is set.
func (r *scanReader) window(a record.Addr, whole bool) (*scanWindow, error) {
	w := &r.slots[r.slot]
	most := r.until(a, r.most)
	if !w.holds(a) || whole && w.stop < most {
		if other := r.other(); other != nil && other.holds(a) && !whole {
			r.slot = 1 - r.slot
			w = other
		} else {
			size := r.size
			if whole {
				size = r.most
			}
			r.ask(r.slot, a, size)
			r.size = min(2*r.size, r.most)
		}
	}
	if r.size == r.most && w.stop == most {
		r.ahead(most)
	}
	r.s.opt.Runner.Wait(w.done)
	w.ready = w.Err == nil
	return w, w.Err
}

// other is the window that is not the present one; nil: there is but one.
func (r *scanReader) other() *scanWindow {
	if len(r.slots) == 1 {
		return nil
	}
	return &r.slots[1-r.slot]
}

func (w *scanWindow) holds(a record.Addr) bool { return w.done != nil && a >= w.base && a < w.stop }

// until is where a window of so many bytes from a on ends: at a page's or the
// span's end at the latest.
func (r *scanReader) until(a record.Addr, size int64) record.Addr {
	end := min((a.Bytes()+size+r.s.align-1)&^(r.s.align-1), r.s.pageEnd(a))
	return min(record.Addr(end/record.Unit), r.spans[0].End)
}

// ahead asks for the page at a, unless that is done.
func (r *scanReader) ahead(a record.Addr) {
	if other := r.other(); other != nil && a < r.spans[0].End && !other.holds(a) {
		r.ask(1-r.slot, a, r.most)
	}
}

// ask starts to read a window of so many bytes from a on.
func (r *scanReader) ask(slot int, a record.Addr, size int64) {
	w := &r.slots[slot]
	if w.done != nil {
		r.s.opt.Runner.Wait(w.done)
	}
	base, stop := a.Bytes()&^(r.s.align-1), r.until(a, size)
	length := (stop.Bytes() - base + r.s.align - 1) &^ (r.s.align - 1)
	done := make(chan struct{})
	*w = scanWindow{done: done, base: record.Addr(base / record.Unit), stop: stop, from: a, seed: r.s.seedAt(a), Op: ioring.Op{
		Kind: ioring.Read, Off: base, Buf: r.memory.Bytes()[int64(slot)*r.room():][:length],
		Done: func(*ioring.Op) { close(done) },
	}}
	if w.copied = r.copy(w); w.copied {
		close(done)
		return
	}
	r.s.dev.Submit([]*ioring.Op{&w.Op})
}

// copy fills a window from the log's memory; false: it is not all there any more.
// Below the end of a span nothing changes but the marks of the sweeper.
func (r *scanReader) copy(w *scanWindow) bool {
	log := r.s.log
	for a := w.base; a < w.stop; a += copyPiece / record.Unit {
		n := min(int((w.stop-a)*record.Unit), copyPiece)
		r.epoch.Enter()
		there := a >= log.Head() && !r.s.closed.Load()
		if there {
			record.CopyOut(unsafe.Pointer(unsafe.SliceData(w.Buf[(a-w.base)*record.Unit:])), log.Pointer(a), n)
		}
		r.epoch.Exit()
		if !there {
			return false
		}
	}
	return true
}
