package hlog

import (
	"sync/atomic"
	"unsafe"

	"rskv/engine/internal/record"
)

// After an open all records are on the device and most frames are free. Warming
// fills them with the newest pages, from the start of this run downwards:
//
//	   on the device        | warmed |   this run
//	------------------------+--------+------------------
//	      begin        <--- head     start           tail
//
// It is the one case in which head moves down, a page at a time, and it never
// crosses a move upwards: both are made under headMu, and a page is only added
// below a head that safeHead has reached, which is when no frame is on its way
// out. A section that still knows the higher head reads from the device what it
// could have had from memory; one that knows the lower head is waited for, like
// any other, before the frame goes. Once the log has taken frames back, or needs
// the rest for itself, warming is over.

// WarmStart reserves a frame for the page below head. ok is false if there is
// none to spare or no such page. The caller owes a WarmEnd.
func (l *Log) WarmStart() (page record.Addr, frame []byte, ok bool) {
	l.headMu.Lock()
	defer l.headMu.Unlock()
	head := l.Head()
	if l.safeHead.Load() != uint64(head) || head&^l.unitMask != head || head <= l.Begin()|l.unitMask {
		return 0, nil, false
	}
	page = head - (l.unitMask + 1)
	if !l.hasRoomFor(page) {
		return 0, nil, false
	}
	p := l.free.take()
	if p == nil {
		return 0, nil, false
	}
	return page, unsafe.Slice((*byte)(p), l.pageSize), true
}

// hasRoomFor reports whether memory can reach down to page without delaying the
// next page turns.
func (l *Log) hasRoomFor(page record.Addr) bool {
	tailPage, _ := unpack(l.tail.Load())
	limits := l.limits.Load()
	return tailPage+1+limits.slack-uint64(page)>>l.unitBits <= uint64(limits.pages)
}

// WarmEnd makes the page reserved last, whose records the caller has read and
// verified, part of memory. It gives the frame back if loaded is false or the
// log has moved on meanwhile, and reports whether warming can go on.
func (l *Log) WarmEnd(page record.Addr, frame []byte, loaded bool) bool {
	l.headMu.Lock()
	defer l.headMu.Unlock()
	head := page + l.unitMask + 1
	p := unsafe.Pointer(unsafe.SliceData(frame))
	if !loaded || l.Head() != head || l.safeHead.Load() != uint64(head) || !l.hasRoomFor(page) {
		l.free.give(p)
		l.space.broadcast()
		return false
	}
	atomic.StorePointer(&l.table[uint64(page)>>l.unitBits&l.tableMask], p)
	l.safeHead.Store(uint64(page))
	l.head.Store(uint64(page)) // last: whoever sees it finds the frame
	return true
}
