package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/index"
	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// filledStore leaves a store of about n bytes on a device, each key at version 1.
func filledStore(t *testing.T, n int64, size int) (dev *iotest.Mem, keys int) {
	dev = newMem()
	s := openOn(t, dev, nil)
	session := s.NewSession()
	for s.log.Tail().Bytes() < n {
		require.NoError(t, session.Put(key64(keys), valueOf(uint64(keys), 1, size)))
		keys++
	}
	session.Close()
	require.NoError(t, s.Close())
	return dev.CrashImage(iotest.CrashOptions{}), keys
}

// TestWarm_Reads: after a restart everything is read from disk although memory
// is free, or something read from a warmed page is not what was stored.
func TestWarm_Reads(t *testing.T) {
	dev, keys := filledStore(t, 12<<20, 1000)
	s := openOn(t, dev, func(o *Options) { o.ColdStart = false })
	require.Eventually(t, s.warm.finished.Load, waitLong, time.Millisecond)
	n := s.NewSession()
	for i := range keys {
		value, err := n.Get(key64(i), nil)
		require.NoError(t, err)
		require.NoError(t, valueIs(value, uint64(i), 1, 1000))
	}
	// The first page of all stays on disk: below it there is no page to keep apart.
	perPage := uint64(pageSizeMin/1000 + 1)
	require.LessOrEqual(t, s.Stats().ColdReads, perPage)
	// What is in memory can be updated, and goes to disk and comes back.
	for i := range keys {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 2, 1000)))
	}
	evict(t, s, n)
	for i := range keys {
		value, err := n.Get(key64(i), nil)
		require.NoError(t, err)
		require.NoError(t, valueIs(value, uint64(i), 2, 1000))
	}
	n.Close()
	checkStore(t, s)
	require.NoError(t, s.Close())
}

// TestWarm_UnderLoad: head moves up while a page is added below it, and a
// session reads a frame that has been given away.
func TestWarm_UnderLoad(t *testing.T) {
	seed := newSeed(t)
	image, keys := filledStore(t, 40<<20, 3000)
	for round := range 2 {
		dev := iotest.NewFault(image.CrashImage(iotest.CrashOptions{}), seed)
		undo := dev.Inject(iotest.Rule{Kind: ioring.Read, Delay: time.Duration(round) * time.Millisecond})
		s := openOn(t, dev, func(o *Options) { o.ColdStart = false })
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Go(func() {
				n := s.NewSession()
				defer n.Close()
				rng := rand.New(rand.NewPCG(seed, uint64(w)))
				mine := map[int]uint64{}
				for i := range 900 {
					k := rng.IntN(keys/3)*3 + w
					if i%3 == 0 {
						mine[k] = uint64(i + 2)
						if err := n.Put(key64(k), valueOf(uint64(k), mine[k], 3000)); err != nil {
							t.Error(err)
							return
						}
						continue
					}
					version := max(mine[k], 1)
					value, err := n.Get(key64(k), nil)
					if err == nil {
						err = valueIs(value, uint64(k), version, 3000)
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		undo()
		require.Eventually(t, func() bool { return s.warm.finished.Load() || s.Stats().Warmed > 0 }, waitLong, time.Millisecond)
		require.Positive(t, s.Stats().Warmed)
		checkStore(t, s)
		require.NoError(t, s.Close())
	}
}

// TestWarm_Damage: a page that does not verify is taken into memory, where
// nothing is verified any more.
func TestWarm_Damage(t *testing.T) {
	dev, keys := filledStore(t, 6<<20, 1000)
	s := openOn(t, dev, nil)
	// With a snapshot the next open reads none of these pages.
	_, err := s.Checkpoint(context.Background(), CheckpointOptions{Kind: FullCheckpoint})
	require.NoError(t, err)
	_, entry := s.index.Find(record.Hash(s.seed, key64(keys/2)))
	at := index.Address(entry)
	require.NoError(t, s.Close())
	dev = dev.CrashImage(iotest.CrashOptions{})
	dev.Corrupt(at.Bytes()+40, func(b byte) byte { return b ^ 4 })
	s = openOn(t, dev, func(o *Options) { o.ColdStart = false })
	defer func() { require.NoError(t, s.Close()) }()
	require.Eventually(t, s.warm.finished.Load, waitLong, time.Millisecond)
	n := s.NewSession()
	defer n.Close()
	damaged := 0
	for i := range keys {
		value, err := n.Get(key64(i), nil)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			damaged++
			continue
		}
		require.NoError(t, valueIs(value, uint64(i), 1, 1000))
	}
	require.Equal(t, 1, damaged)
	require.Greater(t, s.Stats().ColdReads, uint64(keys/3), "the pages below the damaged one stay on disk")
}

// lateRunner lets the task of compaction run for a while before the next ones start.
type lateRunner struct{ Runner }

func (r lateRunner) Start(name string, step func() time.Duration) Task {
	if name == string(TaskExpire) {
		time.Sleep(20 * time.Millisecond)
	}
	return r.Runner.Start(name, step)
}

// TestWarm_BesideCompaction: what compaction has given back while a store opens is read
// at the same time (which the race detector sees).
func TestWarm_BesideCompaction(t *testing.T) {
	dev := newMem()
	fault := iotest.NewFault(dev, 1)
	s := openOn(t, fault, nil)
	n := s.NewSession()
	for round := range 4 {
		for i := range 1000 {
			require.NoError(t, n.Put(key64(i), valueOf(uint64(i), uint64(round), 1000)))
		}
		syncStore(t, s)
	}
	fault.FailMeta(errors.New("gone"))
	_, err := s.Compact(context.Background(), CompactOptions{})
	require.Error(t, err)
	require.Zero(t, s.Stats().LogFreed)
	fault.FailMeta(nil)
	syncStore(t, s)
	image := dev.CrashImage(iotest.CrashOptions{})
	n.Close()
	require.NoError(t, s.Close())
	re := openOn(t, image, func(o *Options) { o.Runner, o.LiveRatio = lateRunner{GoRunner()}, LiveRatioDefault })
	require.Eventually(t, func() bool { return re.Stats().LogFreed > 0 }, waitLong, time.Millisecond)
	n = re.NewSession()
	for i := range 1000 {
		value, err := n.Get(key64(i), nil)
		require.NoError(t, err)
		require.NoError(t, valueIs(value, uint64(i), 3, 1000))
	}
	n.Close()
	require.NoError(t, re.Close())
}
