package engine

import (
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
	store *Store

	closed atomic.Bool // writes that need room have to wait
	full   atomic.Bool // there is no use in waiting

	mu    sync.Mutex
	event chan struct{} // guarded by mu; closed and replaced when room opens
}

const (
	// reserveSegments is the reserve in segments.
	reserveSegments = 2
	// diskSegmentsMin is the smallest budget in segments.
	diskSegmentsMin = 8
)

func (r *room) init(s *Store) {
	r.store = s
	s.compaction.allLive.Store(math.MaxInt64)
	r.event = make(chan struct{})
}

// used is what the store takes on disk in bytes, or will in a moment.
func (r *room) used() int64 {
	s := r.store
	size := s.dev.SegmentSize()
	tail := (s.log.Tail().Bytes() + size) / size * size
	_, end := s.dev.Extent()
	return max(tail, end) - record.Addr(s.stats.freed.Load()).Bytes() + s.stats.checkpointBytes.Load()
}

// diskTarget is the use of the disk in bytes from which on compaction runs.
func (s *Store) diskTarget() int64 { return s.opt.Disk/8*7 - 2*reserveSegments*s.dev.SegmentSize()/2 }

// pressed reports whether compaction should not wait for anything.
func (r *room) pressed() bool {
	disk := r.store.opt.Disk
	return disk > 0 && r.used() > (r.store.diskTarget()+disk-reserveSegments*r.store.dev.SegmentSize())/2
}

// look opens or closes the room. It is called whenever the log has moved.
func (r *room) look() {
	s := r.store
	if s.opt.Disk == 0 {
		return
	}
	limit := s.opt.Disk - reserveSegments*s.dev.SegmentSize()
	closed := r.used() >= limit
	r.full.Store(closed && (s.liveBytes.Load() >= min(limit, s.compaction.allLive.Load()) || s.compaction.stuck.Load()))
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
