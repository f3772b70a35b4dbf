package engine

import (
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"

	"rskv/engine/internal/record"
)

// room keeps the store inside its disk budget, Options.Disk. What counts is what
// lies on the disk: segments from the lowest that is kept to the one behind the
// tail, and checkpoints.
//
//	0                    target            pressed   closed      budget
//	|---------------------|------------------|---------|--reserve--|
//	                      compaction runs    at full   writes wait for it
//	                                         speed
//
// The reserve is what compaction writes before it can free anything, and what
// tombstones and commits may still use: a full store can always be emptied.
type room struct {
	store  *Store
	budget atomic.Int64 // bytes; 0: none

	closed atomic.Bool // writes that need room have to wait
	full   atomic.Bool // there is no use in waiting

	mu    sync.Mutex
	event chan struct{} // guarded by mu; closed and replaced when room opens
}

const (
	// reserveSegments is the reserve in segments: one that a pass copies into, and
	// the two that the log keeps allocated ahead of its tail.
	reserveSegments = 3
	// diskSegmentsMin is the smallest budget in segments.
	diskSegmentsMin = 8
)

func (r *room) init(s *Store) {
	r.store = s
	r.budget.Store(s.opt.Disk)
	s.compaction.allLive.Store(math.MaxInt64)
	r.event = make(chan struct{})
}

// used is what the store takes on disk in bytes, or will in a moment.
func (r *room) used() int64 {
	s := r.store
	size := s.dev.SegmentSize()
	tail := (s.log.Tail().Bytes() + size) / size * size
	_, end := s.dev.Extent()
	return max(tail, end) - record.Addr(s.stats.freed.Load()).Bytes() + s.stats.checkpointBytes.Load() + s.stats.snapshotBytes.Load()
}

// reserve is what writes leave free of a budget: segments for what compaction
// copies before it frees any, and the next snapshot, which is written before an
// old one goes. A snapshot is no larger than the index; where the budget is small
// beside that, an eighth of it has to do.
func (r *room) reserve(disk int64) int64 {
	s := r.store
	next := min(int64(64)<<s.index.Bits(), disk/8)
	return reserveSegments*s.dev.SegmentSize() + max(0, next-s.stats.snapshotBytes.Load())
}

// diskTarget is the use of the disk in bytes from which on compaction runs.
func (s *Store) diskTarget() int64 {
	disk := s.room.budget.Load()
	return disk/8*7 - s.room.reserve(disk)
}

// checkDisk says what is wrong with a disk budget.
func checkDisk(bytes, segment int64) error {
	if least := diskSegmentsMin * segment; bytes != 0 && bytes < least {
		return fmt.Errorf("disk budget of %d bytes: want at least %d, %d segments of %d bytes, or 0 for none",
			bytes, least, diskSegmentsMin, segment)
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

// pressed reports whether compaction should not wait for anything.
func (r *room) pressed() bool {
	disk := r.budget.Load()
	return disk > 0 && r.used() > (r.store.diskTarget()+disk-r.reserve(disk))/2
}

// look opens or closes the room. It is called whenever the log has moved.
func (r *room) look() {
	s := r.store
	disk := r.budget.Load()
	if disk == 0 {
		r.full.Store(false)
		if r.closed.Swap(false) {
			r.open()
		}
		return
	}
	limit := disk - r.reserve(disk)
	closed := r.used() >= limit
	r.full.Store(closed && (s.liveBytes.Load() >= min(limit, s.compaction.allLive.Load()) || s.compaction.stuck.Load() || s.tasks.stopped(TaskCompact)))
	if r.closed.Load() == closed && !r.full.Load() {
		return
	}
	r.closed.Store(closed)
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
