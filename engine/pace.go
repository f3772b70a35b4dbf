package engine

import (
	"time"

	"rskv/engine/internal/record"
)

// How far a pass goes, and how fast.

const (
	// compactPace is the least a pass judges a second in bytes while nothing
	// presses; compactFactor is how much for every byte that is appended meanwhile
	// when a pass has just become due.
	compactPace   = 64 << 20
	compactFactor = 2
	// compactBehind is the part of the wanted live ratio at which passes have fallen
	// so far behind that they do not wait either.
	compactBehind = 0.5
)

// part is up to where a pass that nobody asked for may go: a part of the log, at
// least a segment, up to a segment border.
func (c *compactor) part(e GCEstimate) record.Addr {
	size := c.store.dev.SegmentSize()
	until := c.store.log.Begin().Bytes() + max(size, e.Total/compactParts)
	return record.Addr((until + size - 1) / size * size / record.Unit)
}

// mayGoOn reports whether another page may be judged before the suspects so far are
// looked into, and what has been freed so far is given back.
func (c *compactor) mayGoOn(r *pageReader) bool {
	at := r.position()
	if at <= c.begin {
		return true
	}
	pages := int64(r.outstanding())
	if (pages+1)*c.perPage.Load() > c.space.suspects.left() {
		return false
	}
	room, size := &c.store.room, c.store.dev.SegmentSize()
	if room.budget.Load() == 0 || at.Bytes()%size != 0 || (at-c.begin).Bytes() < size {
		return true
	}
	// What is copied before anything is freed has to fit: one segment always does.
	copied := int64(c.store.stats.moved.Load()-c.passMoved) + pages*int64(c.store.opt.PageSize)
	next := copied * size / (at - c.begin).Bytes()
	return copied+next <= size || room.taken()+size < room.limit()
}

// pace says how long to wait for the pass not to be ahead of what it may take from
// others: the more the longer it is due. A pass that was asked for, or that the disk
// budget needs, does not wait.
func (c *compactor) pace() time.Duration {
	s := c.store
	urgency := s.room.urgency()
	if wanted := s.LiveRatio(); wanted > 0 {
		urgency = max(urgency, (1-s.EstimateGC().Ratio/wanted)/(1-compactBehind))
	}
	if c.byHand || urgency >= 1 {
		return 0
	}
	appended := float64(s.log.Appended() - c.appendedAt)
	free := appended * compactFactor / (1 - max(urgency, 0))
	due := (float64(c.read.Load()) - free) * float64(time.Second) / compactPace
	wait := time.Duration(max(due, 0)) - time.Duration(s.opt.Clock.Monotonic()-c.passBegan)
	return min(wait, compactPoll)
}

// compactTurn is how long a worker works before it lets others run: one whose time on a
// processor is over in the middle of a section holds up all who wait for its end.
const compactTurn = 200 * time.Microsecond

// breathe lets others run if it is time to. The worker is not in a section.
func (w *compactWorker) breathe() {
	if w.c.store.opt.Clock.Monotonic()-w.breathed >= int64(compactTurn) {
		w.yield()
	}
}

func (w *compactWorker) yield() {
	w.c.store.opt.Runner.Yield()
	w.breathed = w.c.store.opt.Clock.Monotonic()
}

// prepare is what comes before a page: others run, and there are frames that have their
// memory. A pass takes them faster than the flusher gives it to them, and who turns to
// one without holds up all who append.
func (w *compactWorker) prepare() {
	for more := true; more; more = w.c.store.log.Populate() {
		w.yield()
	}
}
