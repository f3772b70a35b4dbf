package engine

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"rskv/engine/internal/hlog"
)

// memory divides the one budget while the store runs:
//
//	| index as it is, or will be | ordered index | staging buffers | compaction | timers | read cache | log pages: the rest |
//
// An index that grows takes its memory from the log, in one step when the growth
// begins. The buffers are registered with the device, and stay what they were
// when it was opened.
type memory struct {
	budget atomic.Int64 // bytes
	passes atomic.Int64 // of compaction
	timers atomic.Int64 // of the keys that expire
	peak   atomic.Int64 // the most that all of it has been
	cache  atomic.Int64 // of the read cache, as far as it is used
	index  atomic.Int64 // claimed by the index: what it takes when the growth under way has ended
	order  atomic.Int64 // claimed by the ordered index, 0: there is none

	mu sync.Mutex // held while the log is resized
}

// SetMemory changes the budget, in bytes, at least MemoryMin and what index and
// buffers take already; else the error is ErrMemoryTooSmall and nothing has
// changed. A smaller log takes effect as fast as its oldest pages can be written:
// nothing is lost, only read from disk again. The index can grow to a share of
// the new budget, but not beyond what was reserved for it at Open.
func (s *Store) SetMemory(bytes int64) error {
	if bytes < MemoryMin {
		return fmt.Errorf("%w: %d bytes, at least %d", ErrMemoryTooSmall, bytes, int64(MemoryMin))
	}
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	index := s.memory.index.Load() + s.memory.order.Load()
	if least := index + s.memory.timers.Load() + s.budget.buffers + int64(hlog.PagesMin*s.opt.PageSize); bytes < least {
		return fmt.Errorf("%w: %d bytes, this store needs %d (index %d, buffers %d, %d log pages of %d)", ErrMemoryTooSmall,
			bytes, least, index, s.budget.buffers, hlog.PagesMin, s.opt.PageSize)
	}
	before := s.memory.budget.Swap(bytes)
	if err := s.resizeLogLocked(); err != nil {
		s.memory.budget.Store(before)
		return err
	}
	s.large.setLimit(largeLimit(bytes, s.opt.MaxValue))
	s.sweep.wheel.SetLimit(bytes / timersShare)
	if s.order.tree != nil {
		s.order.task.Wake() // it may have more now
	}
	s.cache.task.Wake()
	s.opt.Logger.Info("memory budget changed", slog.Int64("from", before), slog.Int64("to", bytes), slog.Int64("log", s.log.Memory()))
	return nil
}

// Memory is the budget in bytes.
func (s *Store) Memory() int64 { return s.memory.budget.Load() }

// logPages is how many pages the log may have beside the index.
func (s *Store) logPages() int {
	left := s.memory.forLog(s.budget.buffers) - s.memory.cache.Load()
	return min(max(int(left/int64(s.opt.PageSize)), hlog.PagesMin), s.opt.logPagesMax)
}

// forLog is what log and read cache have together, where the buffers take so much.
func (m *memory) forLog(buffers int64) int64 {
	return m.budget.Load() - m.index.Load() - m.order.Load() - m.passes.Load() - m.timers.Load() - buffers
}

// indexShare is the most the index may take of the present budget.
func (s *Store) indexShare() int64 {
	share, err := divide(s.memory.budget.Load(), s.opt.PageSize, s.opt.IndexBits)
	if err != nil {
		return 0
	}
	return share.index
}

// notePeak notes what the store takes now, and returns the most that it has taken.
// It is called whenever a part has changed.
func (s *Store) notePeak() int64 {
	now := s.index.Bytes() + s.log.Memory() + s.memory.passes.Load() + s.memory.timers.Load() + s.memory.cache.Load() + s.memory.order.Load() + s.budget.buffers
	for {
		most := s.memory.peak.Load()
		if now <= most {
			return most
		}
		if s.memory.peak.CompareAndSwap(most, now) {
			return now
		}
	}
}

// claimForPasses takes memory from the log for compaction, 0 gives it back.
func (s *Store) claimForPasses(bytes int64) error {
	s.memory.passes.Store(bytes)
	return s.resizeLog()
}

// resizeLog brings the log to its part of the budget.
func (s *Store) resizeLog() error {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	return s.resizeLogLocked()
}

func (s *Store) resizeLogLocked() error {
	defer s.notePeak()
	if s.log.Memory() == int64(s.logPages())*int64(s.opt.PageSize) {
		return nil
	}
	return s.log.SetPages(s.logPages())
}
