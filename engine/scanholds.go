package engine

import (
	"sync"
	"time"

	"rskv/engine/internal/record"
)

// scanHolds has compaction wait for scans, within bounds. A pass that ends makes
// the log begin later; a scan that has not got there yet would have to say that it
// cannot go on. So a pass waits before its last step until no scan stands below:
//
//   - for each scan scanHold from its last page on, so that one that was given up
//     holds nothing back for long,
//   - scanHoldMax in all, so that a slow one does not either,
//   - not at all when the disk budget presses.
//
// Nothing depends on it but how often a scan gets ErrCursor.
type scanHolds struct {
	store *Store

	mu    sync.Mutex
	held  map[uint64]scanHeld // by number of the scan; guarded by mu
	next  uint64              // number of the next scan; guarded by mu
	since int64               // clock time at which the pass began to wait; 0: none does; guarded by mu
}

type scanHeld struct {
	at    record.Addr // nothing below is needed any more
	until int64       // clock time
}

const (
	scanHold    = 5 * time.Second
	scanHoldMax = time.Minute
	// scanHoldsMax bounds the scans that are waited for.
	scanHoldsMax = 1024
	// scanHoldPoll is how often a pass that waits looks again.
	scanHoldPoll = 10 * time.Millisecond
)

func (h *scanHolds) init(s *Store) {
	h.store = s
	h.held = make(map[uint64]scanHeld)
	// Numbers of an earlier process may still be around.
	h.next = s.mu.manifest.Generation << 32
}

// begin returns the number of a new scan and holds everything for it.
func (h *scanHolds) begin() (id uint64) {
	h.mu.Lock()
	h.next++
	id = h.next
	h.mu.Unlock()
	h.move(id, 0)
	return id
}

// move notes that a scan has reached a.
func (h *scanHolds) move(id uint64, a record.Addr) {
	until := h.store.opt.Clock.Monotonic() + int64(scanHold)
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.held[id]; known || len(h.held) < scanHoldsMax {
		h.held[id] = scanHeld{a, until}
	}
}

// end forgets a scan.
func (h *scanHolds) end(id uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.held, id)
}

// pass notes that another pass has begun.
func (h *scanHolds) pass() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since = 0
}

// wait is how long a pass waits before it looks again whether the log may begin
// at a; 0: it may.
func (h *scanHolds) wait(a record.Addr) time.Duration {
	now := h.store.opt.Clock.Monotonic()
	pressed := h.store.room.pressed()
	h.mu.Lock()
	defer h.mu.Unlock()
	below := false
	for id, held := range h.held {
		if held.until < now {
			delete(h.held, id)
		} else if held.at < a {
			below = true
		}
	}
	if h.since == 0 {
		h.since = now
	}
	if below && !pressed && now-h.since < int64(scanHoldMax) {
		return scanHoldPoll
	}
	h.since = 0
	return 0
}
