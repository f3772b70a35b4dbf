// Package hlog is the hybrid log: memory and disk as one address space. The
// newest part lives in page frames and may be updated in place, the part before
// it is frozen and on its way to the device, the oldest is on the device only.
//
//	       on disk only      |  immutable, in memory   |fuzzy |    mutable
//	-------------------------+-------------------------+------+-----------------+
//	^                        ^         ^       ^       ^      ^                 ^
//	begin                   head    flushed  sealed  safeRO   RO              tail
//
// # Markers
//
// Every marker only moves up, but for head while the log is being warmed (see
// warm.go), and at every moment
//
//	safeHead <= head <= flushed <= sealed <= safeReadOnly <= readOnly <= tail
//
//	tail          next address to be given out
//	readOnly      below it nobody begins to update in place
//	safeReadOnly  below it nobody is updating in place any more: every session that
//	              knew an older readOnly has left its section
//	sealed        below it every record carries its checksum
//	flushed       below it every byte has been written to the device
//	durable       below it every byte has been synced, up to a commit
//	head          below it nobody begins to look at memory
//	safeHead      below it nobody looks at memory: frames are free
//	begin         below it nothing counts any more; in a short log it may lie
//	              above head
//
// One marker is not always there:
//
//	frozen        while an image of the log is made: below it nobody updates in
//	              place, although it lies above readOnly; it falls, see image.go
//
// The pairs exist because a session that read the old marker may still act on it:
// the second of a pair moves by epoch.Bump, when all such sessions have gone.
//
// # Pages
//
// The address space is cut into pages. A record never crosses a page; the rest
// of a page is a filler record, so a page is tiled with records from its first
// byte (a page header, which names generation and page) to its last. A page in
// memory lies in a frame. There are as many frames as the memory budget pays
// for; a page turn takes a free one, and waits when there is none.
//
// # Flushing
//
// readOnly moves for two reasons: a page turn moves it to a page border, a cut
// (the log's part of a commit) to the end of the commit group, which ends on a
// sector border. So every flush begins and ends on a sector border, no sector is
// ever written twice, and nothing that has been acknowledged is ever overwritten.
//
// Read frame.go and alloc.go for the write path, flush.go for what follows.
package hlog

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"rskv/engine/internal/epoch"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

const (
	// SectorSize is the unit of writing in bytes: no part of a sector that has
	// been written is written again. It is the largest physical sector in use.
	SectorSize = 4096
	// PageHeaderSize is the size of the first record of every page in bytes;
	// it keeps records of 32 and 64 bytes from straddling cache lines.
	PageHeaderSize = 64
	// FirstOffset is where the records of a page begin.
	FirstOffset = PageHeaderSize
	// PagesMin is the smallest number of frames that lets the log turn pages
	// while others are flushed: the tail, the one before it, and two on their
	// way out.
	PagesMin = 6
)

// Options of New. All are required.
type Options struct {
	Device     ioring.Device
	Epoch      *epoch.Domain
	PageBits   uint8 // log2 of the page size in bytes, 18 to 22
	Pages      int   // frames, at least PagesMin
	StoreID    [16]byte
	Generation uint64      // of this run
	Begin      record.Addr // lowest address that counts
	Start      record.Addr // page border at which this run begins to write
	// Wake is called when the flusher has something to do; it must not block.
	Wake func()
}

// Log is one hybrid log. Allocate, Pointer and the markers may be used by any
// session inside its epoch section; FlushStep by one task at a time.
type Log struct {
	// Immutable after New.
	dev        ioring.Device
	epoch      *epoch.Domain
	pageBits   uint8
	pageSize   uint32
	unitBits   uint8       // log2 of the units of a page
	unitMask   record.Addr // units of a page - 1
	seed       record.Seed
	generation uint64
	wake       func()
	tableMask  uint64

	// table maps page & tableMask to its frame. Atomic; written by the owner of
	// the page turn before the tail enters the page, read by all. It lies outside
	// the Go heap, as the frames do: a collection would look at all of it, which
	// takes 2 ms, and while a scan gives its entries memory there is one every 4 MiB.
	table       []unsafe.Pointer
	tableMemory *ioring.Memory

	_ [64]byte
	// tail is page<<32 | offset in bytes. Atomic; see alloc.go.
	tail atomic.Uint64
	// appended is the bytes given out to records, for statistics. Atomic; on the
	// tail's line, which who adds to it has just written.
	appended atomic.Uint64
	_        [64]byte

	// The markers, in units. Atomic; only rise.
	readOnly     atomic.Uint64
	head         atomic.Uint64
	begin        atomic.Uint64
	safeReadOnly atomic.Uint64
	_            [32]byte
	safeHead     atomic.Uint64
	sealed       atomic.Uint64 // written by the flusher task
	flushed      atomic.Uint64 // written by the flusher task
	durable      atomic.Uint64 // written by the committer

	// room is the first segment of the address space that no room is known for.
	// Atomic; written by the flusher task.
	room atomic.Int64
	// reserve is how many segments of room are kept beyond: ReserveSegments, or 0,
	// see SpendReserve. Atomic.
	reserve atomic.Int64

	frozen atomic.Uint64 // in units, 0: there is none; written behind the closed door

	safeTarget atomic.Uint64 // where safeReadOnly may go, were it not for unfinished
	unfinished atomic.Bool   // a commit record waits for its payload, see FinishCut

	limits   atomic.Pointer[limits] // written by SetPages
	leastLag atomic.Uint64          // smallest roLag there has been; written by SetPages

	headMu sync.Mutex // held while head or safeHead is moved

	free  frameList
	space event
	flush flusher
	fault fault

	lastCommit record.Addr // of the last cut; owned by the closed door
}

// New reserves the frames and begins a new page at opt.Start.
func New(opt Options) (*Log, error) {
	if opt.Pages < PagesMin {
		return nil, fmt.Errorf("log memory of %d pages, need at least %d", opt.Pages, PagesMin)
	}
	memory, err := ioring.AllocMemory(int64(opt.Pages) << opt.PageBits)
	if err != nil {
		return nil, fmt.Errorf("log memory: %w", err)
	}
	table, err := ioring.AllocMemory(PagesMax * int64(unsafe.Sizeof(unsafe.Pointer(nil))))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("table of log pages: %w", err), memory.Free())
	}
	l := &Log{
		dev: opt.Device, epoch: opt.Epoch, wake: opt.Wake,
		pageBits: opt.PageBits, pageSize: 1 << opt.PageBits,
		unitBits: opt.PageBits - 4, unitMask: record.Addr(1)<<(opt.PageBits-4) - 1,
		seed:       record.NewSeed(opt.StoreID, opt.Generation),
		generation: opt.Generation,
		tableMask:  PagesMax - 1,
		table:      unsafe.Slice((*unsafe.Pointer)(table.Pointer()), PagesMax), tableMemory: table,
	}
	if opt.Start&l.unitMask != 0 {
		panic(fmt.Sprintf("hlog: start %v is not a page border", opt.Start))
	}
	l.limits.Store(newLimits(opt.Pages))
	l.leastLag.Store(l.limits.Load().roLag)
	l.space.init()
	l.free.init(memory, l.pageSize)
	for _, m := range []*atomic.Uint64{&l.readOnly, &l.head, &l.safeTarget, &l.safeReadOnly, &l.safeHead, &l.sealed, &l.flushed, &l.durable} {
		m.Store(uint64(opt.Start))
	}
	l.begin.Store(uint64(opt.Begin))
	l.reserve.Store(ReserveSegments)
	q := uint64(opt.Start) >> l.unitBits
	l.openPage(q, l.free.take())
	l.tail.Store(pack(q, FirstOffset))
	return l, nil
}

// slackPages is how many frames are kept free, so that a page turn finds one
// while the device is busy.
func slackPages(pages int) uint64 { return uint64(max(1, min(pages/8, 16))) }

// mutablePages is how many full pages behind the tail page stay mutable: nine
// tenths of the memory, as in FASTER, but what is left always holds the slack
// and two pages in flight.
func mutablePages(pages int) uint64 {
	n := pages - 1 - int(slackPages(pages)) - max(2, pages/10)
	return uint64(max(n, 1))
}

// Free gives the frames back. Nobody may be in a section, nothing in flight.
func (l *Log) Free() error { return errors.Join(l.free.close(), l.tableMemory.Free()) }

// PageSize is the page size in bytes.
func (l *Log) PageSize() int { return int(l.pageSize) }

// Seed is the checksum seed of this run's generation.
func (l *Log) Seed() record.Seed { return l.seed }

// ReadOnly, SafeReadOnly, Head, Begin, Flushed and Durable return the markers.
func (l *Log) ReadOnly() record.Addr     { return record.Addr(l.readOnly.Load()) }
func (l *Log) SafeReadOnly() record.Addr { return record.Addr(l.safeReadOnly.Load()) }
func (l *Log) Head() record.Addr         { return record.Addr(l.head.Load()) }
func (l *Log) Begin() record.Addr        { return record.Addr(l.begin.Load()) }
func (l *Log) Flushed() record.Addr      { return record.Addr(l.flushed.Load()) }
func (l *Log) Durable() record.Addr      { return record.Addr(l.durable.Load()) }

// SetDurable records that a sync covered everything below a.
func (l *Log) SetDurable(a record.Addr) { raise(&l.durable, a) }

// SetBegin records that nothing below a counts any more. Everything that does has
// been copied above it.
func (l *Log) SetBegin(a record.Addr) { raise(&l.begin, a) }

// Tail is the next address to be given out.
func (l *Log) Tail() record.Addr {
	page, off := unpack(l.tail.Load())
	return record.Addr(page<<l.unitBits) + record.Addr(min(off, l.pageSize)/record.Unit)
}

// Memory is the number of bytes that frames may take.
func (l *Log) Memory() int64 { return int64(l.limits.Load().pages) * int64(l.pageSize) }

// MutablePages is how many pages behind that of the tail have always stayed
// mutable since New, but for what a cut has frozen.
func (l *Log) MutablePages() uint64 { return l.leastLag.Load() }

// Appended is the number of bytes of records given out since the log was opened.
func (l *Log) Appended() uint64 { return l.appended.Load() }

// PageEnd is the first address behind the page of a.
func (l *Log) PageEnd(a record.Addr) record.Addr { return (a | l.unitMask) + 1 }

// Pointer returns where the record at a lies in memory. The caller is in a
// section in which it has seen head <= a, and must not keep the pointer longer.
func (l *Log) Pointer(a record.Addr) unsafe.Pointer {
	frame := atomic.LoadPointer(&l.table[uint64(a)>>l.unitBits&l.tableMask])
	return unsafe.Add(frame, uint64(a&l.unitMask)*record.Unit)
}

// raise lifts a marker to x unless it is there already, and says whether it did.
func raise(m *atomic.Uint64, x record.Addr) bool {
	for {
		old := m.Load()
		if uint64(x) <= old {
			return false
		}
		if m.CompareAndSwap(old, uint64(x)) {
			return true
		}
	}
}

// checkOrder panics if the markers are out of order. The tail is read last and
// the lower markers first, so that concurrent moves cannot make it cry wolf.
func (l *Log) checkOrder() {
	safeHead, head, flushed := l.safeHead.Load(), l.head.Load(), l.flushed.Load()
	sealed, safeRO, ro, tail := l.sealed.Load(), l.safeReadOnly.Load(), l.readOnly.Load(), uint64(l.Tail())
	if !(safeHead <= head && head <= flushed && flushed <= sealed && sealed <= safeRO && safeRO <= ro && ro <= tail) {
		panic(fmt.Sprintf("hlog: markers out of order: safe head %d, head %d, flushed %d, sealed %d, safe read-only %d, read-only %d, tail %d",
			safeHead, head, flushed, sealed, safeRO, ro, tail))
	}
}

// event is a broadcast: everyone who took the channel before Broadcast wakes.
type event struct {
	mu sync.Mutex
	ch chan struct{} // guarded by mu; closed and replaced by broadcast
}

func (e *event) init() { e.ch = make(chan struct{}) }

func (e *event) wait() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ch
}

func (e *event) broadcast() {
	e.mu.Lock()
	defer e.mu.Unlock()
	close(e.ch)
	e.ch = make(chan struct{})
}
