package engine

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest/loopfs"
	"rskv/ioring/iotest/seeds"
)

var powerCuts = flag.Int("power.cuts", 0, "how often TestRealFault_PowerCut cuts the power of each file system and way to it; 0: 3 times, once with -short")

const (
	cutWriters = 3
	cutKeys    = 40 // of a writer
	cutDisk    = 192 << 20
)

// cutWriter writes numbers 1, 2, 3 ... each to a key of its own turn, and knows
// what a store may hold of them.
type cutWriter struct {
	id      uint64
	issued  uint64 // numbers that have been begun
	durable uint64 // numbers that a sync has answered for
}

// cutKey is the key that write number n of a writer goes to.
func (w *cutWriter) key(n uint64) []byte {
	return fmt.Appendf(nil, "writer %d key %d", w.id, n%cutKeys)
}

// shape is what write number n does: its size, or -1 for a delete.
func (w *cutWriter) shape(n uint64) int {
	switch h := (n*0x9e3779b97f4a7c15 + w.id) >> 56; {
	case h < 20:
		return -1
	case h < 30:
		return 100_000 // two segments' worth of pages now and then
	default:
		return int(h) * 7
	}
}

// run writes until something fails, which is the power cut; cut is set before it.
func (w *cutWriter) run(s *Store, rng *rand.Rand, cut *atomic.Bool) error {
	n := s.NewSession()
	defer n.Close()
	for {
		w.issued++
		var err error
		if size := w.shape(w.issued); size < 0 {
			_, err = n.Delete(w.key(w.issued))
		} else {
			err = n.Put(w.key(w.issued), valueOf(w.id, w.issued, size))
		}
		if err != nil {
			return err
		}
		if rng.IntN(20) > 0 {
			continue
		}
		upTo := w.issued
		if _, err := s.Sync(context.Background()); err != nil {
			return err
		}
		// An answer that comes when the power is gone reaches nobody. It may be wrong
		// here: ext4 lets an fdatasync end well whose extents it could not convert.
		if !cut.Load() {
			w.durable = upTo
		}
	}
}

// check finds the number up to which the store holds this writer's writes, and
// compares all of its keys with that.
func (w *cutWriter) check(s *Store) error {
	n := s.NewSession()
	defer n.Close()
	got := make([][]byte, cutKeys)
	for i := range got {
		value, err := n.Get(w.key(uint64(i)), nil)
		if errors.Is(err, ErrNotFound) {
			value = nil
		} else if err != nil {
			return fmt.Errorf("writer %d, key %d: %w", w.id, i, err)
		}
		got[i] = bytes.Clone(value)
	}
	var why error
	for cut := w.issued; ; cut-- {
		if why = w.matches(got, cut); why == nil {
			w.issued, w.durable = cut, cut // from here on
			return nil
		}
		if cut <= w.durable {
			return fmt.Errorf("writer %d: no prefix between %d, which was durable, and %d is what is there; as of %d: %w", w.id, w.durable, w.issued, cut, why)
		}
	}
}

// matches reports how what is there differs from the writes up to cut.
func (w *cutWriter) matches(got [][]byte, cut uint64) error {
	for i := range got {
		last := int64(cut) - (int64(cut)-int64(i)+cutKeys*8)%cutKeys // the last number of this key
		size := -1
		if last > 0 {
			size = w.shape(uint64(last))
		}
		switch {
		case size < 0 && got[i] != nil:
			return fmt.Errorf("key %d should be gone", i)
		case size < 0:
		case got[i] == nil:
			return fmt.Errorf("key %d is missing", i)
		default:
			if err := valueIs(got[i], w.id, uint64(last), size); err != nil {
				return fmt.Errorf("key %d: %w", i, err)
			}
		}
	}
	return nil
}

// TestRealFault_PowerCut: on ext4 and XFS, past the page cache and through it,
// something that was acknowledged as durable is gone after the power was, or a
// writer's writes are not a prefix of what it did.
func TestRealFault_PowerCut(t *testing.T) {
	seed := seeds.New(t)
	cuts := *powerCuts
	if cuts == 0 {
		if cuts = 3; testing.Short() {
			cuts = 1
		}
	}
	for kind, size := range map[loopfs.Kind]int64{loopfs.Ext4: cutDisk, loopfs.XFS: loopfs.XFSMin} {
		for backend, mode := range realBackends() {
			for _, direct := range []bool{true, false} {
				t.Run(fmt.Sprintf("%s,%s,direct=%t", kind, backend, direct), func(t *testing.T) {
					disk := loopfs.ForTest(t, kind, size)
					c := &powerRun{t: t, disk: disk, mode: mode, direct: direct, rng: rand.New(rand.NewPCG(seed, 9))}
					for i := range cutWriters {
						c.writers = append(c.writers, &cutWriter{id: uint64(i + 1)})
					}
					for range cuts {
						c.round()
					}
					c.last()
				})
			}
		}
	}
}

// powerRun is one store whose power is cut again and again.
type powerRun struct {
	t       *testing.T
	disk    *loopfs.FS
	mode    ioring.Mode
	direct  bool
	rng     *rand.Rand
	writers []*cutWriter
}

func (c *powerRun) open() *Store {
	c.t.Helper()
	dev, err := ioring.Open(ioring.Options{
		Dir: filepath.Join(c.disk.Dir, "data"), Mode: c.mode, SegmentSize: 2 << 20, BufferBytes: 1 << 20, NoDirect: !c.direct,
	})
	require.NoError(c.t, err)
	require.Equal(c.t, c.direct, dev.Info().Direct)
	s, err := Open(Options{
		Device: dev, Memory: MemoryMin, PageSize: pageSizeMin, CommitInterval: 3 * time.Millisecond, CheckpointDistance: 4 << 20,
		Disk: 64 << 20, LiveRatio: 0.5,
	})
	require.NoError(c.t, err)
	return s
}

// verify compares every writer's keys with what it knows.
func (c *powerRun) verify(s *Store) {
	c.t.Helper()
	for _, w := range c.writers {
		if err := w.check(s); err != nil {
			_ = s.Close()
			require.NoError(c.t, err)
		}
	}
}

// round opens the store, looks at what the cut before has left, and cuts the power
// while everybody writes.
func (c *powerRun) round() {
	s := c.open()
	c.verify(s)
	var writing sync.WaitGroup
	var cut atomic.Bool
	failed := make(chan error, len(c.writers))
	for _, w := range c.writers {
		rng := rand.New(rand.NewPCG(c.rng.Uint64(), w.id))
		writing.Go(func() { failed <- w.run(s, rng, &cut) })
	}
	time.Sleep(time.Duration(20+c.rng.IntN(300)) * time.Millisecond)
	cut.Store(true)
	require.NoError(c.t, c.disk.PowerCut())
	waitFor(c.t, "writers that must fail", background(writing.Wait))
	close(failed)
	for err := range failed {
		require.True(c.t, errors.Is(err, ErrReadOnly) || errors.Is(err, ErrDiskFull), "%v", err)
	}
	require.Error(c.t, s.Close(), "a store closes well without a disk")
	require.NoError(c.t, c.disk.Remount())
}

// last looks once more, and sees that all goes on.
func (c *powerRun) last() {
	s := c.open()
	c.verify(s)
	n := s.NewSession()
	require.NoError(c.t, n.Put([]byte("after"), []byte("works")))
	n.Close()
	require.NoError(c.t, s.Close())
	issued := uint64(0)
	for _, w := range c.writers {
		issued += w.issued
	}
	c.t.Logf("%d writes are there", issued)
}
