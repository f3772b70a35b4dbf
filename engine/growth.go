package engine

import (
	"log/slog"
	"time"

	"rskv/engine/internal/index"
	"rskv/engine/internal/manifest"
)

// growth is what the store adds to an index that grows by itself: the memory, a
// task that goes on splitting rows when nobody writes, a log line, and the size
// to begin with.
//
//	          writers                              task "growth"
//	overflow buckets run short --> index.begin --> 500 us of chunks, yield, again
//	          and split chunks of 256 buckets themselves, where they need
//	          overflow buckets
//
// Nothing else has to know: commits and the copying of a snapshot go on beside
// it, and a crash in the middle leaves nothing behind, since the index is not on
// disk: Open makes one that is as large as the last commit says.
type growth struct {
	store *Store
	task  taskRef

	recorded uint8 // largest size that manifest and commit records tell; owned by Open

	// Owned by the task's step.
	doublings uint64 // that have been logged
	limit     index.Limit
}

const (
	// growthSlice bounds how long the task holds a processor at a time: sessions
	// may have no other.
	growthSlice = 500 * time.Microsecond
	// growthRetry is how long it waits for a writer that is splitting a chunk.
	growthRetry = time.Millisecond
)

// planIndex decides the first size of the index and its part of the memory.
func (s *Store) planIndex(m *manifest.Manifest) (err error) {
	s.growth.store = s
	if s.opt.IndexBits == 0 {
		s.opt.IndexBits = indexBitsFor(s.opt.Memory)
	}
	s.opt.IndexBits = max(s.opt.IndexBits, int(m.IndexAnchor))
	if s.budget, err = divide(s.opt.Memory, s.opt.PageSize, s.opt.IndexBits); err != nil {
		return err
	}
	s.noteIndexBits(uint32(m.IndexBits))
	return nil
}

// openIndex makes the index. It reserves addresses for the largest that its share
// of the memory could hold, and asks indexRoom before it takes more of them.
func (s *Store) openIndex() (err error) {
	most := max(indexBitsWithin(s.budget.index), s.opt.IndexBits)
	s.index, err = index.New(index.Options{
		Bits: uint8(s.opt.IndexBits), MaxBits: uint8(most), Overflow: indexOverflow,
		Room: s.indexRoom, Drained: s.epoch.Bump, Wake: s.growth.task.Wake,
	})
	return err
}

// indexRoom reports whether the index may take so many bytes. If so, the growth
// task takes them from the log.
func (s *Store) indexRoom(bytes int64) bool {
	if bytes > s.indexShare() || s.order.tree != nil && bytes+s.memory.order.Load() > s.bothShare() {
		return false
	}
	s.memory.index.Store(bytes)
	s.growth.task.Wake()
	s.cache.task.Wake()
	return true
}

// noteIndexBits notes a size that the index once had.
func (s *Store) noteIndexBits(bits uint32) {
	s.growth.recorded = max(s.growth.recorded, uint8(min(bits, indexBitsMax)))
}

// indexFits reports whether a snapshot of an index with that anchor can be used.
// If the log has been written under a higher one, it cannot; if the index that is
// asked for is so large that few bits of its tag would be left, it is made anew.
func (s *Store) indexFits(m *manifest.Manifest, anchor uint8) bool {
	return anchor >= m.IndexAnchor && s.opt.IndexBits <= int(anchor)+index.GrowthMax
}

// resetIndex empties the index for a snapshot of one of that size and anchor.
func (s *Store) resetIndex(bits, anchor uint8) error {
	size := min(int(max(bits, s.growth.recorded)), indexBitsWithin(s.budget.index), int(anchor)+index.GrowthMax)
	return s.index.Reset(uint8(max(size, s.opt.IndexBits, int(anchor))), anchor)
}

// refillIndex empties the index to be filled from the log, as large as it once
// was. With its size as the anchor, all of its tag is there to grow again.
func (s *Store) refillIndex() error {
	size := min(int(s.growth.recorded), indexBitsWithin(s.budget.index))
	size = max(size, s.opt.IndexBits)
	return s.index.Reset(uint8(size), uint8(size))
}

// step is one step of the task: some chunks, if the index is growing.
func (g *growth) step() time.Duration {
	if !g.task.ready() {
		return time.Millisecond // Open is still starting the tasks
	}
	s := g.store
	if err := s.resizeLog(); err != nil {
		s.opt.Logger.Warn("log keeps the memory that the index needs", slog.Any("error", err))
	}
	now := s.opt.Clock.Monotonic
	for end := now() + int64(growthSlice); ; {
		s.index.Prepare()
		if !s.index.Step() {
			break
		}
		if now() >= end {
			s.opt.Runner.Yield()
			return 0
		}
	}
	g.report()
	s.notePeak()
	if s.index.Growing() {
		return growthRetry
	}
	return -1
}

// report logs what an operator should know about the size of the index.
func (g *growth) report() {
	st, log := g.store.index.Stats(), g.store.opt.Logger
	if st.Doublings != g.doublings {
		g.doublings = st.Doublings
		log.Info("index has grown", slog.Int64("buckets", st.Buckets), slog.Int64("bytes", st.Bytes), slog.Int("tag_bits", int(st.TagBits)))
	}
	if st.Limit == g.limit {
		return
	}
	if g.limit = st.Limit; g.limit != index.NotLimited {
		log.Warn("index should grow but cannot", slog.String("limit", g.limit.String()),
			slog.Int64("buckets", st.Buckets), slog.Int64("bytes", st.Bytes), slog.Int64("bytes_max", g.store.indexShare()))
	}
}
