package hlog

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"unsafe"

	"rskv/engine/internal/record"
	"rskv/ioring"
)

// frameList holds the frames that no page uses. Last in, first out: the frame
// freed last is the warmest. Those that no page has ever used come after all
// others: their first touch waits for the system, so populate gives a few of them
// their memory before a page turn needs one.
type frameList struct {
	mu sync.Mutex
	// All but count are guarded by mu.
	frames   []unsafe.Pointer // with memory
	fresh    []unsafe.Pointer // without
	parked   []unsafe.Pointer // out of use, without memory
	blocks   []*ioring.Memory // what frames are made of
	pageSize int64
	total    int          // frames in use or free
	limit    int          // of them
	count    atomic.Int64 // of both, to be read without mu
}

// populateAhead is how many free frames should have their memory: what is written
// while one huge page is fetched.
const populateAhead = 4

func (f *frameList) init(memory *ioring.Memory, pageSize uint32) {
	n := int(memory.Size() / int64(pageSize))
	f.limit = n
	f.addLocked(memory, n, int64(pageSize))
	f.countLocked()
}

func (f *frameList) countLocked() { f.count.Store(int64(len(f.frames) + len(f.fresh))) }

// take returns a free frame, or nil. The frame's content is arbitrary.
func (f *frameList) take() unsafe.Pointer {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := pop(&f.frames)
	if p == nil {
		p = pop(&f.fresh)
	}
	f.countLocked()
	return p
}

// pop takes the last of a list, nil if there is none.
func pop(list *[]unsafe.Pointer) unsafe.Pointer {
	n := len(*list) - 1
	if n < 0 {
		return nil
	}
	p := (*list)[n]
	*list = (*list)[:n]
	return p
}

// populate gives a frame its memory, unless there are enough that have it. It
// reports whether it did.
func (f *frameList) populate() bool {
	f.mu.Lock()
	var p unsafe.Pointer
	if len(f.frames) < populateAhead {
		p = pop(&f.fresh) // nobody else can take it meanwhile
	}
	memory, off := f.blockOf(p)
	size := f.pageSize
	f.countLocked()
	f.mu.Unlock()
	if p == nil {
		return false
	}
	memory.Populate(off, size)
	f.give(p)
	return true
}

// blockOf finds what a frame is made of, and where in it it lies.
func (f *frameList) blockOf(p unsafe.Pointer) (*ioring.Memory, int64) {
	for _, m := range f.blocks {
		if off := uintptr(p) - uintptr(m.Pointer()); off < uintptr(m.Size()) {
			return m, int64(off)
		}
	}
	return nil, 0
}

func (f *frameList) give(p unsafe.Pointer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.total > f.limit {
		f.parkLocked(p)
		return
	}
	f.frames = append(f.frames, p)
	f.countLocked()
}

// Populate gives a free frame its memory ahead of the tail, if one needs it, and
// reports whether it did: then there may be more to do. It may take milliseconds,
// which a writer that turns the page would have to wait for.
func (l *Log) Populate() bool {
	done := l.free.populate()
	if done {
		l.space.broadcast() // somebody may have found none meanwhile
	}
	return done
}

// openPage gives page its frame and writes the page header. The caller owns the
// page turn; nobody can reach the page before the tail enters it.
func (l *Log) openPage(page uint64, frame unsafe.Pointer) {
	header := pageHeader(l.generation, page)
	record.Write(frame, record.Word0(0, record.TypePage), record.Word1(record.System, len(header), 0), nil, header[:])
	atomic.StorePointer(&l.table[page&l.tableMask], frame)
}

// pageHeader is the payload of a page's first record.
func pageHeader(generation, page uint64) (b [PageHeaderSize - record.HeaderSize]byte) {
	copy(b[:], "rskvPAGE")
	binary.LittleEndian.PutUint64(b[8:], generation)
	binary.LittleEndian.PutUint64(b[16:], page)
	return b
}

// fill writes a filler over [off, end) of the page in memory; both are multiples
// of the unit. The caller owns the range.
func (l *Log) fill(page uint64, off, end uint32) {
	if off == end {
		return
	}
	frame := atomic.LoadPointer(&l.table[page&l.tableMask])
	record.PutFiller(record.Bytes(frame, int(off), int(end-off)))
}

// moveHead lets the oldest pages go, so that slack frames get free, but never
// beyond what has been flushed.
func (l *Log) moveHead() {
	target := min(l.Leaving(0), l.Flushed()) &^ l.unitMask
	if target <= l.Head() || !l.raiseHead(target) {
		return
	}
	l.checkOrder()
	l.epoch.Bump(func() { l.closeUntil(target) })
}

// Leaving is the address below which pages leave memory, once they are flushed, when
// the tail is so many pages further than it is.
func (l *Log) Leaving(ahead uint64) record.Addr {
	tailPage, _ := unpack(l.tail.Load())
	limits := l.limits.Load()
	want := tailPage + 1 + limits.slack + ahead
	if want <= uint64(limits.pages) {
		return 0
	}
	return record.Addr((want - uint64(limits.pages)) << l.unitBits)
}

func (l *Log) raiseHead(target record.Addr) bool {
	l.headMu.Lock()
	defer l.headMu.Unlock()
	return raise(&l.head, target)
}

// closeUntil frees the frames of the pages below target, which nobody looks at
// any more. It is an epoch action: one runs at a time, in the order of the moves.
func (l *Log) closeUntil(target record.Addr) {
	l.headMu.Lock()
	defer l.headMu.Unlock()
	for a := record.Addr(l.safeHead.Load()); a < target; a += l.unitMask + 1 {
		slot := &l.table[uint64(a)>>l.unitBits&l.tableMask]
		frame := atomic.LoadPointer(slot)
		// The frame changes hands here: from the page to the next page turn.
		atomic.StorePointer(slot, nil)
		l.free.give(frame)
	}
	raise(&l.safeHead, target)
	l.space.broadcast()
}
