package hlog

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"rskv/engine/internal/record"
)

// Status is the outcome of Allocate.
type Status uint8

const (
	// OK: the memory is the caller's until it links the record or marks it
	// invalid, before it leaves its section.
	OK Status = iota
	// Again: somebody is turning the page. Leave the section, yield, start over.
	Again
	// Wait: no frame is free. Leave the section, wait for Space, start over.
	Wait
	// Full: no frame is free and none will be before the disk has room, not even
	// its reserve.
	Full
	// Failed: the log has failed for good, see Err.
	Failed
)

// The tail word is page<<32 | offset. Allocation adds to it without looking; the
// offset may therefore overshoot the page by (sessions x largest record), which
// 32 bits always hold. While it does, somebody owns the page turn.
func pack(page uint64, off uint32) uint64       { return page<<32 | uint64(off) }
func unpack(t uint64) (page uint64, off uint32) { return t >> 32, uint32(t) }

// Allocate gives out size bytes (a multiple of record.Unit, at most a page less
// its header) at the tail. The caller is a writer inside its section. (FASTER,
// SIGMOD 2018, section 5.2; the tail is restored before anything else happens,
// because readers of the tail and other writers depend on it.)
func (l *Log) Allocate(size int) (record.Addr, unsafe.Pointer, Status) {
	if _, off := unpack(l.tail.Load()); off > l.pageSize {
		return 0, nil, Again
	}
	page, end := unpack(l.tail.Add(uint64(size)))
	if end <= l.pageSize {
		l.appended.Add(uint64(size))
		off := end - uint32(size)
		a := record.Addr(page<<l.unitBits) + record.Addr(off/record.Unit)
		frame := atomic.LoadPointer(&l.table[page&l.tableMask])
		return a, unsafe.Add(frame, off), OK
	}
	if end-uint32(size) > l.pageSize {
		return 0, nil, Again // not the first to overshoot: the owner overwrites our add
	}
	return l.turn(page, end-uint32(size), uint32(size))
}

// turn begins the next page and allocates size bytes in it. Exactly one session
// gets here per overshoot: the one whose add crossed the page's end. From off on
// the rest of the old page is its own.
func (l *Log) turn(page uint64, off, size uint32) (record.Addr, unsafe.Pointer, Status) {
	var frame unsafe.Pointer
	if l.hasRoom(page + 1) {
		frame = l.free.take()
	}
	if frame == nil {
		l.tail.Store(pack(page, off))
		l.wake()
		return 0, nil, l.whyNoFrame()
	}
	l.enterPage(page, off, frame, size)
	l.shiftReadOnly(l.mutableFrom(page + 1))
	l.moveHead()
	l.wake() // it looks for room ahead
	l.appended.Add(uint64(size))
	a := record.Addr((page+1)<<l.unitBits) + FirstOffset/record.Unit
	return a, unsafe.Add(frame, FirstOffset), OK
}

// enterPage closes page at off and moves the tail into the next one, behind
// size bytes that the caller takes for itself.
func (l *Log) enterPage(page uint64, off uint32, frame unsafe.Pointer, size uint32) {
	l.fill(page, off, l.pageSize)
	l.openPage(page+1, frame)
	// Publish: others allocate in the new page from here on.
	l.tail.Store(pack(page+1, FirstOffset+size))
}

// hasRoom reports whether the disk has a place for page: what the log takes it must
// be able to flush. On a full disk the caller of Allocate knows what may go on.
func (l *Log) hasRoom(page uint64) bool {
	return int64(page<<l.pageBits)/l.dev.SegmentSize() < l.room.Load() || l.fault.full.Load()
}

func (l *Log) whyNoFrame() Status {
	switch {
	case l.fault.err.Load() != nil:
		return Failed
	case l.fault.stuck.Load():
		return Full
	default:
		return Wait
	}
}

// Space returns a channel that is closed when frames have become free or the
// log's state has changed. Take it, then try Allocate once more, then wait: the page
// that was full when the attempt before failed may have been left meanwhile.
func (l *Log) Space() <-chan struct{} { return l.space.wait() }

// Ready reports whether an Allocate that had to wait may have better luck. While
// the disk is full, Space comes again and again.
func (l *Log) Ready() bool {
	page, _ := unpack(l.tail.Load())
	return l.free.count.Load() > 0 && l.hasRoom(page+1) || l.whyNoFrame() != Wait
}

// mutableFrom is where readOnly belongs while page is the tail page.
func (l *Log) mutableFrom(page uint64) record.Addr {
	lag := l.limits.Load().roLag
	if page <= lag {
		return 0
	}
	return record.Addr((page - lag) << l.unitBits)
}

// shiftReadOnly moves readOnly to a page border and, once every session knows,
// safeReadOnly after it.
func (l *Log) shiftReadOnly(target record.Addr) {
	if !raise(&l.readOnly, target) {
		return
	}
	l.epoch.Bump(func() {
		raise(&l.safeTarget, target)
		if l.raiseSafe() {
			l.wake()
		}
	})
}

// raiseSafe moves safeReadOnly as far as every session knows, but not over a
// commit record that FinishCut still owes the rest of its payload. The target is
// read first: one from before the cut is below that record, and one from after it
// finds unfinished set, and is looked at again by FinishCut. It reports whether
// there is something to be flushed.
func (l *Log) raiseSafe() bool {
	target := record.Addr(l.safeTarget.Load())
	return !l.unfinished.Load() && raise(&l.safeReadOnly, target)
}

// Cut ends a commit group: it appends the commit record, whose payload begins
// with head and has room for more bytes behind it, and a filler up to the
// sector's end, and makes everything below immutable. It returns the address of
// the commit record and the end of the group. It runs as the action of the
// closed door: no writer is inside, so the tail belongs to the caller and
// safeReadOnly may follow at once; with more > 0 it follows in FinishCut, which
// the caller owes. ok is false when the group needs a page that is not to be
// had; nothing has changed then. The caller has the group flushed: nobody is woken
// for it, since who commits can do that himself.
func (l *Log) Cut(head []byte, more int) (rec, end record.Addr, ok bool) {
	if rec, end, ok = l.endGroup(head, more); !ok {
		return 0, 0, false
	}
	raise(&l.readOnly, end)
	if more == 0 {
		l.endCut(end)
	}
	return rec, end, true
}

// endGroup appends the commit record and the filler behind it.
func (l *Log) endGroup(head []byte, more int) (rec, end record.Addr, ok bool) {
	page, off := unpack(l.tail.Load())
	size := uint32(record.SystemSize(len(head) + more))
	if off > l.pageSize || size > l.pageSize-FirstOffset {
		panic(fmt.Sprintf("hlog: cut at page %d offset %d of %d bytes", page, off, size))
	}
	if off+size > l.pageSize {
		frame := l.free.take()
		if frame == nil {
			l.wake()
			return 0, 0, false
		}
		l.enterPage(page, off, frame, 0)
		page, off = page+1, FirstOffset
		// Whoever waits for the disk to have room for this page need not any more.
		l.space.broadcast()
	}
	frame := atomic.LoadPointer(&l.table[page&l.tableMask])
	record.Write(unsafe.Add(frame, off), record.Word0(l.lastCommit, record.TypeCommit),
		record.Word1(record.System, len(head)+more, 0), nil, head)
	until := (off + size + SectorSize - 1) &^ (SectorSize - 1)
	l.fill(page, off+size, until)
	l.tail.Store(pack(page, until))

	base := record.Addr(page << l.unitBits)
	rec, end = base+record.Addr(off/record.Unit), base+record.Addr(until/record.Unit)
	l.lastCommit = rec
	// Nobody may seal the record, and so nobody the pages behind it, before
	// its payload is there: set before readOnly can carry anyone past it.
	l.unfinished.Store(more > 0)
	return rec, end, true
}

// FinishCut writes the rest of the payload, skip bytes from its begin, and lets
// the group be sealed. safeReadOnly has not passed the record, so its frame
// stays and nobody looks at it.
func (l *Log) FinishCut(rec, end record.Addr, skip int, rest []byte) {
	copy(record.Bytes(l.Pointer(rec), record.HeaderSize+skip, len(rest)), rest)
	l.endCut(end)
}

func (l *Log) endCut(end record.Addr) {
	raise(&l.safeTarget, end)
	l.unfinished.Store(false)
	l.raiseSafe()
	l.checkOrder()
}

// SetLastCommit tells a new log where the commit before it stands.
func (l *Log) SetLastCommit(a record.Addr) { l.lastCommit = a }
