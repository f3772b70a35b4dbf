package engine

import (
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"

	"rskv/engine/internal/hlog"
	"rskv/engine/internal/record"
)

// room keeps the store inside its disk budget, Options.Disk. What counts is what
// lies on the disk, or will for what is in memory already: segments from the lowest
// that is kept to those that the log wants ahead of its tail, the spare ones, and
// checkpoints.
//
//	0                    target            pressed   limit       budget
//	|---------------------|------------------|---------|---segment---|
//	                      compaction runs    at full   writes wait for it
//	                                         speed
//
// The spare segments are what compaction writes before it can free anything, and
// what tombstones and commits may still use: a full store can always be emptied.
// Where writes have to wait, the log spends them and makes no others.
type room struct {
	store  *Store
	budget atomic.Int64 // bytes; 0: none

	closed atomic.Bool  // writes that need room have to wait
	full   atomic.Bool  // there is no use in waiting
	opened atomic.Int64 // how often writes that had to wait went on

	looking sync.Mutex // held by look: what is found out last has to stand

	mu    sync.Mutex
	event chan struct{} // guarded by mu; closed and replaced when room opens
}

const (
	// diskSegmentsMin is the smallest budget in segments.
	diskSegmentsMin = 8
	// recycleMax bounds the segments that are kept to be written over.
	recycleMax = 32
)

func (r *room) init(s *Store) {
	r.store = s
	r.budget.Store(s.opt.Disk)
	s.compaction.allLive.Store(math.MaxInt64)
	r.event = make(chan struct{})
}

// used is what the store takes on disk in bytes.
func (r *room) used() int64 {
	s := r.store
	begin, end := s.dev.Extent()
	return end - begin + s.dev.Counters().Spares*s.dev.SegmentSize() + s.stats.checkpointBytes.Load() + s.stats.snapshotBytes.Load()
}

// taken is what the store will take on disk in bytes if nothing more is written to
// it, the next snapshot included, which is written before an old one goes. That is
// no larger than the index; where the budget is small beside it, an eighth of it has
// to do.
func (r *room) taken() int64 {
	s := r.store
	log := s.log.Wanted() - record.Addr(s.stats.freed.Load()).Bytes() + hlog.ReserveSegments*s.dev.SegmentSize()
	next := min(int64(64)<<s.index.Bits(), r.budget.Load()/8)
	return log + s.stats.checkpointBytes.Load() + max(next, s.stats.snapshotBytes.Load())
}

// limit is what the store may take in bytes before writes have to wait: a segment
// less than the budget, which the log may want before anybody has looked.
func (r *room) limit() int64 { return r.budget.Load() - r.store.dev.SegmentSize() }

// target is what it may take before compaction runs.
func (r *room) target() int64 { return r.limit() - r.budget.Load()/8 }

// recyclable is how many discarded segments are kept to be written over: what the
// log takes until the next pass frees more, as far as the budget goes.
func (r *room) recyclable() int {
	s := r.store
	size := s.dev.SegmentSize()
	n := min(max((s.log.Tail()-s.log.Begin()).Bytes()/compactParts/size, 1), recycleMax)
	if r.budget.Load() > 0 {
		n = min(n, (r.limit()-r.taken())/size)
	}
	return int(max(n, 0))
}

// checkDisk says what is wrong with a disk budget.
func checkDisk(bytes, segment int64) error {
	if least := diskSegmentsMin * segment; bytes != 0 && bytes < least {
		return fmt.Errorf("%w: disk budget of %d bytes: want at least %d, %d segments of %d bytes, or 0 for none",
			ErrBadOptions, bytes, least, diskSegmentsMin, segment)
	}
	return nil
}

// SetDisk changes the disk budget, Options.Disk, in bytes. If the store takes more
// than that already, writes wait until compaction has brought it below.
func (s *Store) SetDisk(bytes int64) error {
	if err := checkDisk(bytes, s.dev.SegmentSize()); err != nil {
		return err
	}
	if before := s.room.budget.Swap(bytes); before != bytes {
		s.opt.Logger.Info("disk budget changed", slog.Int64("from", before), slog.Int64("to", bytes))
	}
	s.room.look()
	s.compaction.task.Wake()
	return nil
}

// urgency is 0 where the target is reached, 1 half way from there to where writes
// have to wait.
func (r *room) urgency() float64 {
	if r.budget.Load() == 0 {
		return 0
	}
	target := r.target()
	return float64(r.taken()-target) / float64(max((r.limit()-target)/2, 1))
}

// pressed reports whether compaction should not wait for anything.
func (r *room) pressed() bool { return r.urgency() >= 1 }

// look opens or closes the room. It is called whenever the log has moved.
func (r *room) look() {
	r.looking.Lock()
	defer r.looking.Unlock()
	s := r.store
	disk := r.budget.Load()
	if disk == 0 {
		r.full.Store(false)
		s.log.SpendReserve(false)
		if r.closed.Swap(false) {
			r.open()
		}
		return
	}
	limit, taken := r.limit(), r.taken()
	closed := taken >= limit
	s.log.SpendReserve(closed)
	// What else than live records takes room whatever compaction does.
	fixed := taken - (s.log.Tail() - record.Addr(s.stats.freed.Load())).Bytes()
	r.full.Store(closed && (s.liveLog() >= min(limit-fixed, s.compaction.allLive.Load()) || s.compaction.stuck.Load() ||
		s.tasks.stopped(TaskCompact) || s.log.Err() != nil))
	if r.closed.Load() == closed && !r.full.Load() {
		return
	}
	if r.closed.Swap(closed) && !closed {
		r.opened.Add(1)
	}
	if closed {
		s.compaction.task.Wake()
	}
	r.open()
}

// open wakes everybody who waits.
func (r *room) open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.event)
	r.event = make(chan struct{})
}

// wait returns a channel that is closed when the state has changed.
func (r *room) wait() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.event
}

// refuses reports whether the session may not append such a record now.
func (r *room) refuses(s *Session, kind record.Kind) bool {
	return (r.closed.Load() || r.store.log.Full()) && kind != record.Tombstone && !s.mover
}
