package iotest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"github.com/cespare/xxhash/v2"

	"rskv/ioring"
)

// ErrPowerCut: the device has been told to stop working at this point.
var ErrPowerCut = errors.New("iotest: power cut")

const (
	memSegmentDefault = 1 << 20
	memBuffersDefault = 4 << 20
	// sector is the unit that a disk writes whole or not at all.
	sector = 512
)

// MemOptions of NewMem; the zero value works.
type MemOptions struct {
	// SegmentSize in bytes, a power of two, 1 MiB if zero.
	SegmentSize int64
	// BufferBytes is the staging memory, 4 MiB if zero.
	BufferBytes int64
	// Align is what ops must obey, 512 and 512 if zero.
	Align ioring.Align
	// Manual lets operations wait until Step or Run is called.
	Manual bool
	// Segments is how many segments there is room for, the reserve included; zero
	// means any number. SetRoom changes it.
	Segments int
	// Seed other than zero takes waiting operations in an order drawn from it;
	// with zero they are taken first come, first served.
	Seed uint64
}

// Mem is a device in memory that knows what has been synced. It promises no more
// than a Device must: a Sync covers exactly the writes that had finished when it
// was submitted, and what it does not cover may be anything after a crash. It
// panics if the memory of a write changes while the write is under way.
//
//	Submit -> queue -> step: effect on live, write noted as unsynced -> Done
//	                         Sync: unsynced writes go to durable
//	CrashImage: durable + a choice of unsynced writes and of those in the queue
type Mem struct {
	options MemOptions
	buffers *ioring.Buffers

	mu struct {
		sync.Mutex
		segments  map[int64]*memSegment
		unsynced  []memWrite // in the order they finished
		metas     map[string][]byte
		ghosts    map[int64][]byte // discarded; a crash may bring them back
		floor     int64            // highest bound of a discard
		room      int              // segments there may be, with the reserve; 0: any number
		spares    int              // segments' worth of room that is reserved, blank
		kept      []memKept        // and of what has been discarded
		wanted    int              // how many of both there shall be
		recycle   int              // how many more may be kept
		short     bool             // not all could be made
		queue     []memOp
		running   bool // somebody is taking ops from the queue
		finished  uint64
		events    []Event
		onOp      func(n int, e Event)
		failAfter int // events that still succeed; negative: no limit
		counters  ioring.Counters
		rng       *rand.Rand
		closed    bool
	}
	idle sync.Cond // the queue may have become empty, or nobody is running
}

type memSegment struct {
	live, durable []byte
	named         bool   // the directory entry is durable
	made          uint64 // number of the write that made it
	was           int64  // the segment that it was made of, or none
}

// none is no number of a segment.
const none = -1

// memWrite is a finished write that no sync has covered.
type memWrite struct {
	off    int64
	data   []byte
	number uint64 // finished as the number-th write
}

// memOp is an op in the queue.
type memOp struct {
	op     *ioring.Op
	sum    uint64 // of a write's memory
	covers uint64 // a sync: writes up to this number
}

// EventKind says what an Event did.
type EventKind string

// The kinds of events: everything that changes what a crash leaves.
const (
	EventWrite      EventKind = "write"
	EventSync       EventKind = "sync"
	EventDiscard    EventKind = "discard"
	EventPrepare    EventKind = "prepare"
	EventWriteMeta  EventKind = "write meta"
	EventRemoveMeta EventKind = "remove meta"
	// The steps of a metadata stream. Only its commit changes what a crash
	// leaves; the others are events so that a crash can come between them.
	EventCreateMeta EventKind = "create meta"
	EventStreamMeta EventKind = "stream meta"
	EventCommitMeta EventKind = "commit meta"
	EventAbortMeta  EventKind = "abort meta"
)

// Event is one change, in the order they took effect.
type Event struct {
	Kind EventKind
	Off  int64  // write: address; discard: until; prepare: address of the segment
	Len  int    // write, write meta, stream meta: bytes; commit meta: bytes in all
	Name string // metadata
}

// NewMem returns an empty device.
func NewMem(options MemOptions) *Mem {
	if options.SegmentSize == 0 {
		options.SegmentSize = memSegmentDefault
	}
	if options.BufferBytes == 0 {
		options.BufferBytes = memBuffersDefault
	}
	if options.Align == (ioring.Align{}) {
		options.Align = ioring.Align{Offset: sector, Memory: sector}
	}
	if s := options.SegmentSize; s <= 0 || s&(s-1) != 0 {
		panic(fmt.Sprintf("iotest: segment size %d is not a power of two", s))
	}
	buffers, err := ioring.NewBuffers(options.BufferBytes)
	if err != nil {
		panic(fmt.Sprintf("iotest: %v", err))
	}
	m := &Mem{options: options, buffers: buffers}
	// Close leaves the device readable, so its staging memory goes when nobody
	// can reach it any more: a test that cuts the power thousands of times would
	// otherwise keep a huge page of each image.
	runtime.AddCleanup(m, func(b *ioring.Buffers) { _ = b.Free() }, buffers)
	m.idle.L = &m.mu
	m.mu.segments = make(map[int64]*memSegment)
	m.mu.metas = make(map[string][]byte)
	m.mu.ghosts = make(map[int64][]byte)
	m.mu.failAfter = -1
	m.mu.room = options.Segments
	m.mu.rng = rand.New(rand.NewPCG(options.Seed, 0))
	return m
}

// Submit implements ioring.Device.
func (m *Mem) Submit(ops []*ioring.Op) {
	ioring.MustBeOps(ops)
	m.mu.Lock()
	if m.mu.closed {
		m.mu.counters.Errors += uint64(len(ops))
		m.mu.Unlock()
		for _, op := range ops {
			op.N, op.Err = 0, ioring.ErrClosed
			op.Done(op)
		}
		return
	}
	for _, op := range ops {
		waiting := memOp{op: op, covers: m.mu.finished}
		if op.Kind == ioring.Write {
			waiting.sum = xxhash.Sum64(op.Buf)
		}
		m.mu.queue = append(m.mu.queue, waiting)
		m.mu.counters.InFlight++
	}
	if !m.options.Manual && !m.mu.running && len(m.mu.queue) > 0 {
		m.mu.running = true
		go m.drain()
	}
	m.mu.Unlock()
}

// drain serves the queue until it is empty and ends: a Mem that is dropped
// leaves no goroutine behind.
func (m *Mem) drain() {
	for m.step(true) {
	}
}

// Step lets one waiting operation take effect and calls its Done, both on the
// caller's goroutine. It reports false if none is waiting. For Manual devices.
func (m *Mem) Step() bool {
	if !m.options.Manual {
		panic("iotest: Step of a device that is not Manual")
	}
	return m.step(false)
}

// Run calls Step until nothing is waiting, including what Done submits.
func (m *Mem) Run() {
	for m.Step() {
	}
}

func (m *Mem) step(automatic bool) bool {
	m.mu.Lock()
	if len(m.mu.queue) == 0 {
		if automatic {
			m.mu.running = false
		}
		m.idle.Broadcast()
		m.mu.Unlock()
		return false
	}
	i := 0
	if m.options.Seed != 0 {
		i = m.mu.rng.IntN(len(m.mu.queue))
	}
	chosen := m.mu.queue[i]
	m.mu.Unlock()
	// The op stays in the queue while the hook looks: a crash at this moment
	// finds it under way.
	n, err := m.perform(chosen)
	m.mu.Lock()
	m.mu.queue = slices.DeleteFunc(m.mu.queue, func(o memOp) bool { return o.op == chosen.op })
	m.count(chosen.op, n, err)
	m.mu.Unlock()
	chosen.op.N, chosen.op.Err = n, err
	chosen.op.Done(chosen.op)
	m.mu.Lock()
	m.mu.counters.InFlight--
	m.mu.Unlock()
	return true
}

func (m *Mem) count(op *ioring.Op, n int, err error) {
	c := &m.mu.counters
	if err != nil {
		c.Errors++
	}
	switch {
	case errors.Is(err, ioring.ErrMisaligned): // refused, not tried
	case op.Kind == ioring.Read:
		c.Reads++
		c.ReadBytes += uint64(n)
	case op.Kind == ioring.Write:
		c.Writes++
		c.WriteBytes += uint64(n)
	default:
		c.Syncs++
	}
}

func (m *Mem) perform(o memOp) (int, error) {
	op := o.op
	if op.Kind != ioring.Sync {
		if err := ioring.CheckOp(op, m.options.Align, m.options.SegmentSize); err != nil {
			return 0, err
		}
	}
	switch op.Kind {
	case ioring.Read:
		return m.read(op)
	case ioring.Write:
		return m.write(op, o.sum)
	}
	return 0, m.sync(o.covers)
}

func (m *Mem) read(op *ioring.Op) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.failAfter == 0 {
		return 0, ErrPowerCut
	}
	s := m.mu.segments[op.Off/m.options.SegmentSize]
	if s == nil {
		return 0, fmt.Errorf("%w: address %d", ioring.ErrNoSegment, op.Off)
	}
	return copy(op.Buf, s.live[op.Off%m.options.SegmentSize:]), nil
}

func (m *Mem) write(op *ioring.Op, sum uint64) (int, error) {
	if xxhash.Sum64(op.Buf) != sum {
		panic(fmt.Sprintf("iotest: the memory of the write at %d changed while it was under way", op.Off))
	}
	if !m.makeRoom(op.Off / m.options.SegmentSize) {
		return 0, fmt.Errorf("iotest: make segment: %w", syscall.ENOSPC)
	}
	err := m.change(Event{Kind: EventWrite, Off: op.Off, Len: len(op.Buf)}, func() {
		m.mu.finished++
		index := op.Off / m.options.SegmentSize
		s := m.mu.segments[index]
		if s == nil {
			s = m.newSegmentLocked()
			s.made = m.mu.finished
			m.mu.segments[index] = s
			delete(m.mu.ghosts, index)
		}
		copy(s.live[op.Off%m.options.SegmentSize:], op.Buf)
		m.mu.unsynced = append(m.mu.unsynced, memWrite{op.Off, slices.Clone(op.Buf), m.mu.finished})
	})
	if err != nil {
		return 0, err
	}
	return len(op.Buf), nil
}

func (m *Mem) sync(covers uint64) error {
	return m.change(Event{Kind: EventSync}, func() {
		rest := m.mu.unsynced[:0]
		for _, w := range m.mu.unsynced {
			if w.number > covers {
				rest = append(rest, w)
				continue
			}
			if s := m.mu.segments[w.off/m.options.SegmentSize]; s != nil && w.number >= s.made {
				copy(s.durable[w.off%m.options.SegmentSize:], w.data)
			}
		}
		clear(m.mu.unsynced[len(rest):])
		m.mu.unsynced = rest
		named := false
		for _, s := range m.mu.segments {
			if !s.named && s.made <= covers {
				s.named, named = true, true
			}
		}
		if named {
			clear(m.mu.ghosts) // the directory was synced
		}
	})
}

// change is the one way to change state: the hook sees the event before it has
// its effect, with no lock held, so that it may take a crash image.
func (m *Mem) change(e Event, effect func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.failAfter == 0 {
		return ErrPowerCut
	}
	if m.mu.failAfter > 0 {
		m.mu.failAfter--
	}
	m.mu.events = append(m.mu.events, e)
	if hook := m.mu.onOp; hook != nil {
		n := len(m.mu.events)
		m.mu.Unlock()
		hook(n, e)
		m.mu.Lock()
	}
	effect()
	return nil
}

// OnOp sets a hook that is called just before the n-th event, counted from 1,
// takes effect. It may call CrashImage, FailAfter and Events, nothing that waits
// for an operation.
func (m *Mem) OnOp(hook func(n int, e Event)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.onOp = hook
}

// FailAfter lets the next n events succeed; everything after them, reads too,
// fails with ErrPowerCut. Negative lifts the limit.
func (m *Mem) FailAfter(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.failAfter = n
}

// Events lists what has changed the device since it was made.
func (m *Mem) Events() []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mu.events)
}

// CrashOptions say what happened to each thing that was not synced. The zero
// value loses all of it.
type CrashOptions struct {
	// Seed draws the fates and the order.
	Seed uint64
	// Keep is the chance of an unsynced write to be there whole, of a new
	// segment to have its name, and of a discarded one to be back. 0 to 1.
	Keep float64
	// Tear is the chance of a write that is not kept to be there in part: each
	// sector of 512 bytes with a chance of one half. 0 to 1.
	Tear float64
	// Reorder applies what is kept in a random order.
	Reorder bool
}

// CrashImage returns a new device as the disk might look if the power failed
// now. The device itself goes on.
func (m *Mem) CrashImage(options CrashOptions) *Mem {
	image := NewMem(m.options)
	rng := rand.New(rand.NewPCG(options.Seed, 1))
	m.mu.Lock()
	defer m.mu.Unlock()
	image.mu.room = m.mu.room
	for name, data := range m.mu.metas {
		image.mu.metas[name] = slices.Clone(data)
	}
	// Indices are sorted, so that the seed alone decides.
	for _, index := range sortedKeys(m.mu.segments) {
		if s := m.mu.segments[index]; s.named || rng.Float64() < options.Keep {
			image.place(index, s.durable)
		}
	}
	back := m.ghostsLocked(rng, options.Keep, image)
	writes := m.unsyncedLocked(rng, options.Keep, image, back)
	if options.Reorder {
		rng.Shuffle(len(writes), func(i, j int) { writes[i], writes[j] = writes[j], writes[i] })
	}
	for _, w := range writes {
		image.survive(w, rng, options)
	}
	return image
}

// unsyncedLocked lists the writes whose fate is open: finished and unsynced, and
// those under way. A write under way may have made its segment. Where a segment has
// its old name back, so have the writes into it.
func (m *Mem) unsyncedLocked(rng *rand.Rand, keep float64, image *Mem, back map[int64]int64) []memWrite {
	var writes []memWrite
	for _, w := range m.mu.unsynced {
		index := w.off / m.options.SegmentSize
		if s := m.mu.segments[index]; s != nil && w.number >= s.made {
			if old, ok := back[index]; ok {
				w.off += (old - index) * m.options.SegmentSize
			}
			writes = append(writes, w)
		}
	}
	for _, o := range m.mu.queue {
		if o.op.Kind != ioring.Write || ioring.CheckOp(o.op, m.options.Align, m.options.SegmentSize) != nil || m.mu.failAfter == 0 {
			continue
		}
		index := o.op.Off / m.options.SegmentSize
		if m.mu.segments[index] == nil && image.mu.segments[index] == nil && rng.Float64() < keep {
			image.place(index, make([]byte, m.options.SegmentSize))
		}
		w := memWrite{off: o.op.Off, data: o.op.Buf}
		if old, ok := back[index]; ok {
			w.off += (old - index) * m.options.SegmentSize
		}
		writes = append(writes, w)
	}
	return writes
}

// place puts a durable segment into an image under construction.
func (m *Mem) place(index int64, data []byte) {
	m.mu.segments[index] = &memSegment{live: slices.Clone(data), durable: slices.Clone(data), named: true, was: none}
}

// survive draws the fate of a write in an image under construction.
func (m *Mem) survive(w memWrite, rng *rand.Rand, options CrashOptions) {
	s := m.mu.segments[w.off/m.options.SegmentSize]
	keep, tear := rng.Float64() < options.Keep, rng.Float64() < options.Tear
	if s == nil || !keep && !tear {
		return
	}
	at := w.off % m.options.SegmentSize
	for from := 0; from < len(w.data); from += sector {
		if keep || rng.IntN(2) == 0 {
			part := w.data[from:min(from+sector, len(w.data))]
			copy(s.live[at+int64(from):], part)
			copy(s.durable[at+int64(from):], part)
		}
	}
}

func sortedKeys[V any](m map[int64]V) []int64 {
	keys := make([]int64, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// Corrupt changes one byte at an address, live and durable alike, behind the
// back of whoever uses the device. The segment must exist.
func (m *Mem) Corrupt(off int64, change func(byte) byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.mu.segments[off/m.options.SegmentSize]
	if s == nil {
		panic(fmt.Sprintf("iotest: corrupt address %d: no such segment", off))
	}
	at := off % m.options.SegmentSize
	s.live[at] = change(s.live[at])
	s.durable[at] = change(s.durable[at])
}

// SegmentSize implements ioring.Device.
func (m *Mem) SegmentSize() int64 { return m.options.SegmentSize }

// Align implements ioring.Device.
func (m *Mem) Align() ioring.Align { return m.options.Align }

// Extent implements ioring.Device.
func (m *Mem) Extent() (begin, end int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	indices := sortedKeys(m.mu.segments)
	if len(indices) == 0 {
		return 0, 0
	}
	return indices[0] * m.options.SegmentSize, (indices[len(indices)-1] + 1) * m.options.SegmentSize
}

// Discard implements ioring.Device.
func (m *Mem) Discard(until int64) error {
	if err := m.openOrClosed(); err != nil {
		return err
	}
	return m.change(Event{Kind: EventDiscard, Off: until}, func() {
		m.mu.floor = max(m.mu.floor, until)
		for index, s := range m.mu.segments {
			if (index+1)*m.options.SegmentSize <= until {
				delete(m.mu.segments, index)
				if s.named {
					m.mu.ghosts[index] = s.durable
				}
				m.keepLocked(index, s)
			}
		}
	})
}

// Prepare implements ioring.Device. The segment is there when it returns, full of
// zeros or of what a discarded one held; a crash may take it away until a sync. It
// is an event unless there is nothing to be done.
func (m *Mem) Prepare(until int64) {
	size := m.options.SegmentSize
	if until <= 0 || until > (1<<63-1)-size || m.openOrClosed() != nil {
		return
	}
	index := (until - 1) / size
	m.mu.Lock()
	wanted := m.wantedLocked(index) && (m.sparesLocked() > 0 || m.freeLocked())
	m.mu.Unlock()
	if !wanted {
		return
	}
	_ = m.change(Event{Kind: EventPrepare, Off: index * size}, func() {
		if !m.wantedLocked(index) {
			return // somebody was faster
		}
		s := m.newSegmentLocked()
		s.made = m.mu.finished + 1
		if s.was == none {
			m.mu.counters.PrepareBytes += uint64(size)
		}
		m.mu.segments[index] = s
	}) // after a power cut nobody is told, as on a disk
}

// wantedLocked tells whether a segment may be prepared.
func (m *Mem) wantedLocked(index int64) bool {
	return m.mu.segments[index] == nil && (index+1)*m.options.SegmentSize > m.mu.floor
}

// Buffers implements ioring.Device.
func (m *Mem) Buffers() *ioring.Buffers { return m.buffers }

// ReadMeta implements ioring.Device.
func (m *Mem) ReadMeta(name string) ([]byte, error) {
	if err := ioring.CheckMetaName(name); err != nil {
		return nil, err
	}
	if err := m.openOrClosed(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.mu.metas[name]
	switch {
	case m.mu.failAfter == 0:
		return nil, ErrPowerCut
	case !ok:
		return nil, fmt.Errorf("%w: %s", ioring.ErrNoMeta, name)
	}
	return slices.Clone(data), nil
}

// WriteMeta implements ioring.Device.
func (m *Mem) WriteMeta(name string, data []byte) error {
	if err := ioring.CheckMetaName(name); err != nil {
		return err
	}
	if err := m.openOrClosed(); err != nil {
		return err
	}
	return m.change(Event{Kind: EventWriteMeta, Name: name, Len: len(data)}, func() {
		m.mu.metas[name] = slices.Clone(data)
		m.dirSynced()
	})
}

// RemoveMeta implements ioring.Device.
func (m *Mem) RemoveMeta(name string) error {
	if err := ioring.CheckMetaName(name); err != nil {
		return err
	}
	if err := m.openOrClosed(); err != nil {
		return err
	}
	return m.change(Event{Kind: EventRemoveMeta, Name: name}, func() {
		delete(m.mu.metas, name)
		m.dirSynced()
	})
}

// dirSynced: every change of metadata syncs the directory, and all names with it.
func (m *Mem) dirSynced() {
	for _, s := range m.mu.segments {
		s.named = true
	}
	clear(m.mu.ghosts)
}

// ListMeta implements ioring.Device.
func (m *Mem) ListMeta() ([]string, error) {
	if err := m.openOrClosed(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.mu.metas {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

func (m *Mem) openOrClosed() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return ioring.ErrClosed
	}
	return nil
}

// Info implements ioring.Device.
func (m *Mem) Info() ioring.Info {
	return ioring.Info{Backend: "memory", Why: "this is a test", Detail: "nothing is stored"}
}

// Counters implements ioring.Device.
func (m *Mem) Counters() ioring.Counters {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.mu.counters
	c.Spares = int64(m.sparesLocked())
	return c
}

// Close implements ioring.Device. A Manual device performs what is waiting. The
// content stays: CrashImage still works, and shows what a shutdown leaves.
func (m *Mem) Close() error {
	m.mu.Lock()
	m.mu.closed = true
	m.mu.Unlock()
	if m.options.Manual {
		m.Run()
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.mu.running {
		m.idle.Wait()
	}
	return nil
}
