package engine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestOptions_Bad: an option out of its range is taken, or refused by an error that
// nobody can tell from another, or that names one fault of two.
func TestOptions_Bad(t *testing.T) {
	for name, change := range map[string]func(o *Options){
		"page size 12345":            func(o *Options) { o.PageSize = 12345 },
		"segment size 3":             func(o *Options) { o.SegmentSize = 3 },
		"index bits 99":              func(o *Options) { o.IndexBits = 99 },
		"largest value -1":           func(o *Options) { o.MaxValue = -1 },
		"-1 checkpoints kept":        func(o *Options) { o.CheckpointsKept = -1 },
		"-2 ledgers":                 func(o *Options) { o.Ledgers = -2 },
		"live ratio 1.5":             func(o *Options) { o.LiveRatio = 1.5 },
		"disk budget of -1 bytes":    func(o *Options) { o.Disk = -1 },
		"disk budget of 4096 bytes":  func(o *Options) { o.Disk = 4096 },
		"ledger expiry -1s":          func(o *Options) { o.LedgerExpiry = -time.Second },
		"memory budget is too small": func(o *Options) { o.Memory = MemoryMin - 1 },
	} {
		_, err := tryOpenOn(newMem(), change)
		require.ErrorContains(t, err, name)
		if name != "memory budget is too small" {
			require.ErrorIs(t, err, ErrBadOptions, name)
		}
		require.True(t, IsUserError(err), name)
	}
	_, err := Open(Options{PageSize: 7, LiveRatio: 2})
	require.ErrorIs(t, err, ErrBadOptions)
	for _, fault := range []string{"no directory", "page size 7", "live ratio 2"} {
		require.ErrorContains(t, err, fault)
	}
	s := openOn(t, newMem(), nil)
	require.ErrorIs(t, s.SetLiveRatio(2), ErrBadOptions)
	require.ErrorIs(t, s.SetDisk(1), ErrBadOptions)
	_, err = s.Compact(t.Context(), CompactOptions{Until: -1})
	require.ErrorIs(t, err, ErrBadOptions)
	require.NoError(t, s.Close())
}

// TestStats_MemoryPeak: the peak is not the most that the parts were together.
func TestStats_MemoryPeak(t *testing.T) {
	s := openOn(t, newMem(), func(o *Options) { o.Memory = 64 << 20 })
	together := func() int64 {
		st := s.Stats()
		return st.MemoryIndex + st.MemoryLog + st.MemoryBuffers + st.MemoryPasses + st.MemoryTimers + st.MemoryOrdered + st.MemoryCache
	}
	// Not by statistics, which note what is taken: the log gives up its part a moment later.
	require.Eventually(t, func() bool {
		return s.memory.cache.Load() > 0 && s.log.Memory() == int64(s.logPages())*int64(s.opt.PageSize)
	}, waitLong, time.Millisecond)
	first := together()
	cached := s.memory.cache.Load()
	require.GreaterOrEqual(t, s.Stats().MemoryPeak, first)
	require.LessOrEqual(t, s.Stats().MemoryPeak, int64(64<<20)+cached)
	require.NoError(t, s.SetMemory(96<<20))
	var most int64
	require.Eventually(t, func() bool { // not in the middle of a change
		most = together()
		return most > first && most == s.Stats().MemoryPeak
	}, time.Minute, time.Millisecond)
	require.NoError(t, s.SetMemory(48<<20))
	require.Eventually(t, func() bool { return together() < first }, time.Minute, time.Millisecond)
	require.GreaterOrEqual(t, s.Stats().MemoryPeak, most)
	require.LessOrEqual(t, s.Stats().MemoryPeak, int64(96<<20)+cached)
	require.NoError(t, s.Close())
}
