package sim

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"

	"github.com/cespare/xxhash/v2"

	"rskv/ioring"
)

// ErrPowerCut: the power of the disk is gone.
var ErrPowerCut = errors.New("sim: power cut")

// sector is what a disk writes whole or not at all, in bytes.
const sector = 512

// DiskOptions of NewDisk. All but Faults and Room are required.
type DiskOptions struct {
	SegmentSize int64
	BufferBytes int64 // staging memory
	Align       ioring.Align
	Faults      []Fault
	// Room is how many segments there is room for, the reserve included; 0: any
	// number.
	Room int
	// Seed draws what belongs to the disk itself: the fates of a power cut.
	Seed uint64
}

// Disk is a Device of a World. It promises what a Device must, and no more: a
// Sync covers exactly the writes that had answered when it was submitted, and a
// few more by chance; what it does not cover may be anything after a power cut.
// Each operation has two moments, both drawn: when it takes effect, and when it
// answers. Its faults may break those promises, see FaultKind.
//
//	Submit ----- takes effect ----- answers
//	  |               |                |
//	  memory is lent  on the disk,     counts for the syncs to come
//	                  not durable
//
// Metadata is changed at once: the fiber that asks may hold locks. A power cut may
// still come in the middle.
type Disk struct {
	w       *World
	opt     DiskOptions
	buffers *ioring.Buffers
	// OnChange is called before everything that changes the disk, if it is set.
	OnChange func()

	segments map[int64]*segment
	ghosts   map[int64]*segment // discarded, a power cut may bring them back
	metas    map[string][]byte
	unsynced []*write // in the order they took effect
	inFlight map[*ioring.Op]*write
	answered uint64 // writes that have answered
	floor    int64
	spares   int        // blank ones
	kept     []*segment // discarded ones, to be written over
	wanted   int        // how many of both there shall be
	recycle  int        // how many more may be kept
	short    bool
	full     bool
	slow     bool
	failed   error // a sync failed; final
	dead     error // the power is gone
	image    *Image
	closed   bool
	busy     int // operations under way
	idle     chan struct{}
	counters ioring.Counters

	count  [countedKinds]int
	hits   [faultKinds]int
	harmed bool // by a fault, in an earlier life
}

// segment is a part of the address space.
type segment struct {
	live, durable []byte
	named         bool  // the directory entry is durable
	was           int64 // the segment that it was made of, or none
}

// none is no number of a segment.
const none = -1

// write is a write on its way to being durable.
type write struct {
	off    int64
	data   []byte
	answer uint64 // it answered as that one; 0: it has not
}

// NewDisk returns an empty disk.
func NewDisk(w *World, opt DiskOptions) (*Disk, error) {
	return newDisk(w, opt, &Image{segments: map[int64]*segment{}, metas: map[string][]byte{}})
}

func newDisk(w *World, opt DiskOptions, image *Image) (*Disk, error) {
	buffers, err := ioring.NewBuffers(opt.BufferBytes)
	if err != nil {
		return nil, err
	}
	return &Disk{
		w: w, opt: opt, buffers: buffers, idle: make(chan struct{}, 1),
		segments: image.segments, kept: image.kept, metas: image.metas, harmed: image.harmed,
		ghosts: map[int64]*segment{}, inFlight: map[*ioring.Op]*write{},
	}, nil
}

func draw(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0xd15c)) }

// Hits is how often each kind of fault has struck.
func (d *Disk) Hits() [faultKinds]int { return d.hits }

// Harmed reports whether what is stored, or was read, is not what should be.
func (d *Disk) Harmed() bool {
	for k, n := range d.hits {
		if n > 0 && FaultKind(k).Harms() {
			return true
		}
	}
	return d.harmed
}

// Dead reports whether the power is gone.
func (d *Disk) Dead() bool { return d.dead != nil }

// Changes is how often the disk has been changed so far: what a PowerCut counts.
func (d *Disk) Changes() int { return d.count[changes] }

// Submit implements ioring.Device.
func (d *Disk) Submit(ops []*ioring.Op) {
	ioring.MustBeOps(ops)
	alone := len(ops) == 1 && d.busy == 0 && d.w.rng.IntN(3) == 0
	for _, op := range ops {
		if d.closed {
			d.counters.Errors++
			op.N, op.Err = 0, ioring.ErrClosed
			op.Done(op)
			continue
		}
		d.begin(op, alone)
	}
}

// begin starts an operation. One that is alone may be done at once.
func (d *Disk) begin(op *ioring.Op, atOnce bool) {
	d.busy++
	sum, covers := uint64(0), d.answered
	if op.Kind == ioring.Write {
		sum = xxhash.Sum64(op.Buf)
		d.inFlight[op] = &write{off: op.Off, data: op.Buf}
	}
	d.w.note("submit", opName(op.Kind), uint64(op.Off), sum)
	var n int
	var err error
	effect := func() {
		if op.Kind == ioring.Write && xxhash.Sum64(op.Buf) != sum {
			d.w.fail(fmt.Errorf("the memory of the write of %d bytes at 0x%x changed while it was under way", len(op.Buf), op.Off))
		}
		n, err = d.perform(op, covers)
	}
	answer := func() {
		if w := d.inFlight[op]; w != nil && err == nil {
			d.answered++
			w.answer = d.answered
		}
		delete(d.inFlight, op)
		d.tally(op, n, err)
		d.w.note("answer", opName(op.Kind), uint64(op.Off), uint64(n))
		d.busy--
		if d.busy == 0 {
			select {
			case d.idle <- struct{}{}:
			default:
			}
		}
		op.N, op.Err = n, err
		op.Done(op)
	}
	if atOnce {
		effect()
		answer()
		return
	}
	d.w.after(d.latency(), "effect", func() {
		effect()
		d.w.after(d.latency()/4, "answer", answer)
	})
}

func opName(k ioring.OpKind) string {
	return [...]string{ioring.Read: "read", ioring.Write: "write", ioring.Sync: "sync"}[k]
}

// latency is how long a step of an operation takes in nanoseconds: some
// microseconds mostly, long enough at times for everything else to be faster.
func (d *Disk) latency() (ns int64) {
	rng := d.w.rng
	switch x := rng.IntN(100); {
	case x < 70:
		ns = rng.Int64N(30_000)
	case x < 97:
		ns = rng.Int64N(400_000)
	default:
		ns = rng.Int64N(8_000_000)
	}
	switch {
	case d.dead != nil:
		return ns / 10
	case d.slow:
		return ns * 1000
	}
	return ns
}

func (d *Disk) tally(op *ioring.Op, n int, err error) {
	c := &d.counters
	if err != nil {
		c.Errors++
	}
	switch {
	case errors.Is(err, ioring.ErrMisaligned):
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

func (d *Disk) perform(op *ioring.Op, covers uint64) (int, error) {
	if op.Kind != ioring.Sync {
		if err := ioring.CheckOp(op, d.opt.Align, d.opt.SegmentSize); err != nil {
			return 0, err
		}
	}
	switch op.Kind {
	case ioring.Read:
		return d.read(op)
	case ioring.Write:
		return d.write(op)
	}
	return 0, d.sync(covers)
}

func (d *Disk) place(off int64) (*segment, int64) {
	return d.segments[off/d.opt.SegmentSize], off % d.opt.SegmentSize
}

func (d *Disk) read(op *ioring.Op) (int, error) {
	if d.dead != nil {
		return 0, d.dead
	}
	f := d.strike(reads)
	s, at := d.place(op.Off)
	if f != nil && f.Kind == ReadError {
		return 0, fmt.Errorf("sim: read: %w", syscall.EIO)
	}
	if s == nil {
		return 0, fmt.Errorf("%w: address %d", ioring.ErrNoSegment, op.Off)
	}
	if f != nil && f.Kind == ReadElsewhere {
		rng := draw(f.Arg)
		s = d.segments[pick(rng, d.segments)]
		at = rng.Int64N((d.opt.SegmentSize-int64(len(op.Buf)))/sector+1) * sector
	}
	n := copy(op.Buf, s.live[at:])
	if f != nil && f.Kind == ReadFlip {
		bit := draw(f.Arg).IntN(8 * len(op.Buf))
		op.Buf[bit/8] ^= 1 << (bit % 8)
	}
	return n, nil
}

// pick draws a key of a map.
func pick[K int64 | string, V any](rng *rand.Rand, m map[K]V) K {
	keys := slices.Sorted(maps.Keys(m))
	return keys[rng.IntN(len(keys))]
}

func (d *Disk) write(op *ioring.Op) (int, error) {
	if d.dead != nil {
		return 0, d.dead
	}
	if d.failed != nil {
		return 0, d.failed
	}
	f := d.strike(writes)
	if f != nil && f.Kind == WriteError {
		d.tear(op, draw(f.Arg))
		return 0, fmt.Errorf("sim: write: %w", syscall.EIO)
	}
	if !d.makeRoom(op.Off / d.opt.SegmentSize) {
		return 0, fmt.Errorf("sim: make segment: %w", syscall.ENOSPC)
	}
	if err := d.change(); err != nil {
		return 0, err
	}
	off, data := op.Off, op.Buf
	if f != nil {
		switch f.Kind {
		case WriteShort:
			n := draw(f.Arg).IntN(len(data)/sector) * sector
			d.store(op, off, data[:n])
			return n, fmt.Errorf("sim: write: %w", ioring.ErrShort)
		case WriteLost:
			d.segment(off) // the file is there, what was written is not
			return len(data), nil
		case WriteElsewhere:
			d.segment(off)
			rng := draw(f.Arg)
			off = pick(rng, d.segments)*d.opt.SegmentSize + rng.Int64N((d.opt.SegmentSize-int64(len(data)))/sector+1)*sector
		}
	}
	d.store(op, off, data)
	return len(data), nil
}

// segment returns the segment of off and makes it if it is missing.
func (d *Disk) segment(off int64) *segment {
	index := off / d.opt.SegmentSize
	s := d.segments[index]
	if s == nil {
		s = d.newSegment()
		d.segments[index] = s
		delete(d.ghosts, index)
	}
	return s
}

// store puts bytes where they will be read, and remembers them as not durable.
func (d *Disk) store(op *ioring.Op, off int64, data []byte) {
	if len(data) == 0 {
		return
	}
	s := d.segment(off)
	copy(s.live[off%d.opt.SegmentSize:], data)
	w := &write{off: off, data: slices.Clone(data)}
	d.unsynced = append(d.unsynced, w)
	if d.inFlight[op] != nil {
		d.inFlight[op] = w // from now on it is the disk's own copy whose fate is open
	}
}

// tear stores some sectors of a write.
func (d *Disk) tear(op *ioring.Op, rng *rand.Rand) {
	if d.segments[op.Off/d.opt.SegmentSize] == nil {
		return
	}
	for at := 0; at < len(op.Buf); at += sector {
		if rng.IntN(2) == 0 {
			d.store(nil, op.Off+int64(at), op.Buf[at:min(at+sector, len(op.Buf))])
		}
	}
}

// change is called before an effect; the power may go instead.
func (d *Disk) change() error {
	if d.OnChange != nil && d.dead == nil {
		d.OnChange()
	}
	return d.changing()
}

func (d *Disk) sync(covers uint64) error {
	if d.dead != nil {
		return d.dead
	}
	if d.failed != nil {
		return d.failed
	}
	f := d.strike(syncs)
	if err := d.change(); err != nil {
		return err
	}
	if f != nil && f.Kind == SyncError {
		d.loseUnsynced(draw(f.Arg))
		d.failed = fmt.Errorf("%w: sim: sync: %w", ioring.ErrSyncFailed, syscall.EIO)
		return d.failed
	}
	if f != nil && f.Kind == SyncLost {
		return nil
	}
	rest := d.unsynced[:0]
	for _, w := range d.unsynced {
		if (w.answer == 0 || w.answer > covers) && d.w.rng.IntN(4) > 0 {
			rest = append(rest, w)
			continue
		}
		d.persist(w)
	}
	clear(d.unsynced[len(rest):])
	d.unsynced = rest
	d.dirSynced()
	return nil
}

// persist makes a write durable.
func (d *Disk) persist(w *write) {
	if s, at := d.place(w.off); s != nil {
		copy(s.durable[at:], w.data)
	}
}

// dirSynced: every sync syncs the directory, and all names with it.
func (d *Disk) dirSynced() {
	for _, s := range d.segments {
		s.named = true
	}
	clear(d.ghosts)
}

// loseUnsynced forgets some of what was not durable when a sync failed, also for
// who reads it: the system has thrown its pages away.
func (d *Disk) loseUnsynced(rng *rand.Rand) {
	rest := d.unsynced[:0]
	for _, w := range d.unsynced {
		if rng.IntN(2) == 0 {
			rest = append(rest, w)
			continue
		}
		if s, at := d.place(w.off); s != nil {
			copy(s.live[at:at+int64(len(w.data))], s.durable[at:])
		}
	}
	d.unsynced = rest
}

// rot changes bytes at rest: a bit, a sector of zeros, a sector of somewhere else.
func (d *Disk) rot(rng *rand.Rand) {
	if len(d.segments) == 0 {
		return
	}
	s := d.segments[pick(rng, d.segments)]
	at := rng.Int64N(d.opt.SegmentSize)
	first := at / sector * sector
	var change func(b []byte)
	switch rng.IntN(3) {
	case 0:
		bit := byte(1) << rng.IntN(8)
		change = func(b []byte) { b[at] ^= bit }
	case 1:
		change = func(b []byte) { clear(b[first : first+sector]) }
	default:
		from := d.segments[pick(rng, d.segments)]
		image := slices.Clone(from.live[first:][:sector])
		change = func(b []byte) { copy(b[first:], image) }
	}
	change(s.live)
	change(s.durable)
}

// SegmentSize implements ioring.Device.
func (d *Disk) SegmentSize() int64 { return d.opt.SegmentSize }

// Align implements ioring.Device.
func (d *Disk) Align() ioring.Align { return d.opt.Align }

// Extent implements ioring.Device.
func (d *Disk) Extent() (begin, end int64) {
	begin = -1
	for index := range d.segments {
		if begin < 0 || index < begin {
			begin = index
		}
		end = max(end, index+1)
	}
	return max(begin, 0) * d.opt.SegmentSize, end * d.opt.SegmentSize
}

// Discard implements ioring.Device.
func (d *Disk) Discard(until int64) error {
	if d.closed {
		return ioring.ErrClosed
	}
	if err := d.change(); err != nil {
		return err
	}
	d.w.note("discard", "", uint64(until), 0)
	d.floor = max(d.floor, until)
	for _, index := range slices.Sorted(maps.Keys(d.segments)) {
		if (index+1)*d.opt.SegmentSize > until {
			continue
		}
		s := d.segments[index]
		delete(d.segments, index)
		if s.named {
			d.ghosts[index] = s
		}
		d.keep(index, s)
	}
	d.unsynced = slices.DeleteFunc(d.unsynced, func(w *write) bool { return w.off/d.opt.SegmentSize*d.opt.SegmentSize+d.opt.SegmentSize <= until })
	return nil
}

// Prepare implements ioring.Device. The segment is there some time later.
func (d *Disk) Prepare(until int64) {
	if until <= 0 || until > (1<<63-1)-d.opt.SegmentSize || d.closed {
		return
	}
	index := (until - 1) / d.opt.SegmentSize
	d.w.after(d.latency(), "prepare", func() {
		wanted := d.segments[index] == nil && (index+1)*d.opt.SegmentSize > d.floor && (d.sparesAll() > 0 || d.free()) && !d.closed
		if !wanted || d.change() != nil {
			return // nobody is told, as on a disk
		}
		if s := d.segment(index * d.opt.SegmentSize); s.was == none {
			d.counters.PrepareBytes += uint64(d.opt.SegmentSize)
		}
	})
}

// Buffers implements ioring.Device.
func (d *Disk) Buffers() *ioring.Buffers { return d.buffers }

// Info implements ioring.Device.
func (d *Disk) Info() ioring.Info {
	return ioring.Info{Backend: "simulated", Why: "this is a test", Detail: "nothing is stored"}
}

// Counters implements ioring.Device.
func (d *Disk) Counters() ioring.Counters {
	c := d.counters
	c.InFlight, c.Spares = int64(d.busy), int64(d.sparesAll())
	return c
}

// Close implements ioring.Device. The second call does nothing.
func (d *Disk) Close() error {
	if d.closed {
		return nil
	}
	d.closed = true
	for d.busy > 0 {
		d.w.Wait(d.idle)
	}
	return d.buffers.Free()
}
