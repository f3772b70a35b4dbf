package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"rskv/engine/internal/record"
)

// CompactOptions of Store.Compact.
type CompactOptions struct {
	// Until is the byte address up to which the log is compacted, rounded down to
	// a page; 0 takes the whole log that is durable.
	Until int64
}

// CompactResult says what a compaction pass did. Sizes are in bytes.
type CompactResult struct {
	From    int64 // byte address the log began at before
	Begin   int64 // byte address the log begins at now
	Scanned int64 // log looked at
	Copied  int64 // of it still live, copied to the tail
	Freed   int64 // given back to the file system; what kept checkpoints need waits
	Records int64 // looked at, tombstones included
	Removed int64 // of these, those that were not copied: dead, deleted or expired
	Took    time.Duration
}

// PassStats is a CompactResult in Stats. Sizes are in bytes.
type PassStats struct {
	Scanned int64 `json:"scanned"`
	Copied  int64 `json:"copied"`
	Freed   int64 `json:"freed"`
	Records int64 `json:"records"`
	Removed int64 `json:"removed"`
	TookNS  int64 `json:"took_ns"`
	EndedMS int64 `json:"ended_ms"` // since 1970
}

// ErrCompacting: another pass is under way or waits already.
var ErrCompacting = fmt.Errorf("%w: a compaction pass is under way", ErrBusy)

// Compact copies what is live at the beginning of the log to its tail and frees
// the rest, while operations go on. It returns when that is durable. If ctx ends
// first, Compact returns its error and the pass goes on.
func (s *Store) Compact(ctx context.Context, opt CompactOptions) (CompactResult, error) {
	if opt.Until < 0 {
		return CompactResult{}, fmt.Errorf("%w: compact until address %d: want 0 or more", ErrBadOptions, opt.Until)
	}
	r := &compactRequest{until: record.Addr(opt.Until / record.Unit), done: make(chan struct{})}
	if err := s.compaction.ask(r); err != nil {
		return CompactResult{}, err
	}
	if ctx.Done() == nil {
		s.opt.Runner.Wait(r.done)
		return r.result, r.err
	}
	select {
	case <-r.done:
		return r.result, r.err
	case <-ctx.Done():
		return CompactResult{}, ctx.Err()
	}
}

// GCEstimate says what compaction could bring, from counters. Sizes in bytes.
type GCEstimate struct {
	Total       int64   `json:"total"` // log from its begin to its tail
	Live        int64   `json:"live"`  // of it taken by live records, estimated
	Reclaimable int64   `json:"reclaimable"`
	Pinned      int64   `json:"pinned"` // freed already, but kept for checkpoints
	Ratio       float64 `json:"live_ratio"`

	Mutable  int64 `json:"mutable"`   // of the log: updated in place
	ReadOnly int64 `json:"read_only"` // in memory, frozen
	OnDisk   int64 `json:"on_disk"`   // on disk only
	// Entries in each of the three, estimated from the mean size of a record.
	MutableEntries  int64 `json:"mutable_entries"`
	ReadOnlyEntries int64 `json:"read_only_entries"`
	OnDiskEntries   int64 `json:"on_disk_entries"`

	// WouldPay says whether a pass would start by itself now; Reason why, or why
	// not.
	WouldPay bool   `json:"would_pay"`
	Reason   string `json:"reason"`
}

// EstimateGC says what compaction could bring now. It costs nothing.
func (s *Store) EstimateGC() GCEstimate {
	head, begin, ro, tail := s.log.Head(), s.log.Begin(), s.log.ReadOnly(), s.log.Tail()
	head, ro = min(max(head, begin), tail), min(max(ro, begin), tail)
	e := GCEstimate{
		Total: (tail - begin).Bytes(), Pinned: max(0, (begin - record.Addr(s.stats.freed.Load())).Bytes()),
		Mutable: (tail - ro).Bytes(), ReadOnly: max(0, ro.Bytes()-head.Bytes()), OnDisk: (head - begin).Bytes(),
	}
	e.Live = s.liveLog()
	e.Reclaimable = e.Total - e.Live
	if e.Total > 0 {
		e.Ratio = float64(e.Live) / float64(e.Total)
	}
	if keys := s.Len(); keys > 0 && e.Live > 0 {
		mean := max(e.Live/keys, record.Unit)
		e.MutableEntries, e.ReadOnlyEntries, e.OnDiskEntries = e.Mutable/mean, e.ReadOnly/mean, e.OnDisk/mean
	}
	e.WouldPay, e.Reason = s.compaction.due(e)
	return e
}

// liveLog is how many bytes of the log are live: what the counters say, but what
// has expired on disk is among that until compaction meets it.
func (s *Store) liveLog() int64 {
	total := max((s.log.Tail() - s.log.Begin()).Bytes(), 0)
	expired, _ := s.sweep.expiring.sum(s.clock.now())
	return max(min(s.liveBytes.Load(), total-expired), 0)
}

// Policy. A pass takes the oldest part of the log, whatever is in it: copying
// what is live there costs at most as much as it frees as long as half of the
// whole log is dead.
const (
	// LiveRatioDefault is the share of live bytes below which passes start.
	LiveRatioDefault = 0.5
	// compactMinSegments is how long a log must be for its ratio to matter.
	compactMinSegments = 4
	// compactParts is into how many passes a log is cut: each frees its part
	// before the next begins.
	compactParts = 8
	// pinnedMin is how much of what has been freed kept checkpoints may hold back
	// in any case; beyond, as much as is live.
	pinnedMin = 1 << 30
)

// due says whether a pass should start by itself.
func (c *compactor) due(e GCEstimate) (bool, string) {
	s := c.store
	size, disk, ratio := s.dev.SegmentSize(), s.room.budget.Load(), s.LiveRatio()
	switch {
	case s.tasks.stopped(TaskCompact):
		return false, "automatic compaction is stopped"
	case ratio < 0 && disk == 0:
		return false, "automatic compaction is off"
	case e.Total < compactMinSegments*size && !s.room.closed.Load():
		return false, "the log is short"
	case disk > 0 && s.room.taken() > s.room.target():
		return e.Reclaimable > 0 && e.Live < c.allLive.Load(), fmt.Sprintf("log, checkpoints and their reserve take %d bytes of a disk budget of %d", s.room.taken(), disk)
	case ratio >= 0 && e.Ratio < ratio:
		if tail := record.Addr(c.waitTail.Load()); s.log.Tail() < tail {
			return false, fmt.Sprintf("the last pass freed too little: the next waits for the log to reach %v", tail)
		}
		return true, fmt.Sprintf("%.0f%% of the log is live, less than %.0f%%", 100*e.Ratio, 100*ratio)
	}
	return false, fmt.Sprintf("%.0f%% of the log is live", 100*e.Ratio)
}

// errDamagedLog: compaction does not go over damage.
var errDamagedLog = errors.New("the log is damaged")

// SetLiveRatio changes Options.LiveRatio: below which share of live bytes passes
// start by themselves, at most 1; negative: none does for its sake.
func (s *Store) SetLiveRatio(ratio float64) error {
	if !(ratio <= 1) {
		return fmt.Errorf("%w: live ratio %g: want at most 1", ErrBadOptions, ratio)
	}
	s.compaction.liveRatio.Store(math.Float64bits(ratio))
	s.compaction.task.Wake()
	return nil
}

// LiveRatio is the share of live bytes below which passes start by themselves.
func (s *Store) LiveRatio() float64 { return math.Float64frombits(s.compaction.liveRatio.Load()) }
