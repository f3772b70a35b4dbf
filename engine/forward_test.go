package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest"
)

// churn writes some keys again and again until the log has moved through memory so many times.
func churn(t *testing.T, s *Store, n *Session, keys, size, times int) {
	t.Helper()
	ops := make([]Op, 16)
	for until, i := s.log.Tail().Bytes()+int64(times)*s.log.Memory(), 0; s.log.Tail().Bytes() < until; {
		for j := range ops {
			ops[j] = Op{Kind: OpPut, Key: key64(i % keys), Value: valueOf(uint64(i%keys), 1, size)}
			i++
		}
		n.Do(ops)
		if i%1024 == 0 {
			syncStore(t, s)
		}
		if i%256 == 0 {
			// The test's disk is memory, and faster than one goroutine that copies: it is
			// waited for before more has been written than it is ahead of head.
			for s.forward.due() {
				s.forward.task.Wake()
				time.Sleep(10 * time.Microsecond)
			}
		}
	}
}

// TestForward_Stays: what fits into memory, and nobody writes, is on disk only
// after commits have driven the log through memory; large values, and those that
// have not expired yet, too.
func TestForward_Stays(t *testing.T) {
	for _, stopped := range []bool{false, true} {
		t.Run(fmt.Sprintf("stopped=%v", stopped), func(t *testing.T) {
			s := openOn(t, newMem(), nil)
			n := s.NewSession()
			const hot, cold, size = 2000, 4000, 1000
			times := 4 // through the memory
			if raceEnabled {
				times = 2
			}
			for i := range hot + cold {
				require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 1, size)))
			}
			large := bytes.Repeat([]byte("large"), 60_000)
			require.NoError(t, n.Put([]byte("large"), large))
			ttl := Op{Kind: OpPut, Key: []byte("ttl"), Value: []byte("v"), TTL: 3_600_000}
			require.NoError(t, n.one(&ttl))
			_, err := n.Delete(key64(hot))
			require.NoError(t, err)
			require.Less(t, s.liveBytes.Load(), s.log.Memory()/2)
			if stopped {
				require.NoError(t, s.StopTask(TaskForward))
			}
			churn(t, s, n, hot, size, times)
			before := s.Stats()
			for i := range hot + cold {
				value, err := n.Get(key64(i), nil)
				if i == hot {
					require.ErrorIs(t, err, ErrNotFound)
					continue
				}
				require.NoError(t, err)
				require.NoError(t, valueIs(value, uint64(i), 1, size))
			}
			value, err := n.Get([]byte("large"), nil)
			require.NoError(t, err)
			require.Equal(t, large, value)
			left, err := n.TTL([]byte("ttl"))
			require.NoError(t, err)
			require.InDelta(t, 3_600_000, left, 600_000)
			st := s.Stats()
			if stopped {
				require.Zero(t, st.Forwarded)
				require.Greater(t, st.ColdReads-before.ColdReads, uint64(cold/2))
			} else {
				require.Positive(t, st.Forwarded)
				// Deleted, and what shares a chain, is left to the device.
				require.Less(t, st.ColdReads-before.ColdReads, uint64(cold/100))
			}
			require.LessOrEqual(t, st.Forwarded, st.LogAppended/2)
			checkLen(t, s, hot+cold+1)
			n.Close()
			checkStore(t, s)
			require.NoError(t, s.Close())
		})
	}
}

// TestForward_TooMuch: more lives than half of the memory, and it is copied round and
// round.
func TestForward_TooMuch(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	keys := int(s.log.Memory()) * 3 / 4 / 1000
	churn(t, s, n, keys, 1000, 3)
	require.Greater(t, s.liveBytes.Load(), s.log.Memory()/2)
	require.Zero(t, s.Stats().Forwarded)
	// Were the estimate wrong, others would still have to append as much.
	s.liveBytes.Store(0)
	churn(t, s, n, keys, 1000, 3)
	st := s.Stats()
	require.LessOrEqual(t, st.Forwarded, st.LogAppended/2+1<<20)
	n.Close()
	require.NoError(t, s.Close())
}

// TestForward_Race: a record is copied after a newer one, a deletion or a copy by
// compaction was made, and comes back; or a crash loses what was copied.
func TestForward_Race(t *testing.T) {
	seed := newSeed(t)
	mem := newMem()
	// The log is longer than its memory before a pass is due: pages do leave.
	s := openOn(t, mem, func(o *Options) { o.LiveRatio = 0.1; o.CommitInterval = 5 * time.Millisecond })
	const writers, keys, size = 2, 6000, 500
	var stop atomic.Bool
	var wg sync.WaitGroup
	states := make([]map[int]uint64, writers)
	for w := range writers {
		states[w] = map[int]uint64{}
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(w)))
			n := s.NewSession()
			defer n.Close()
			for version := uint64(1); !stop.Load(); version++ {
				k := w + writers*rng.IntN(keys)
				if rng.IntN(8) != 0 {
					k = w + writers*rng.IntN(keys/20) // these are written often
				}
				if rng.IntN(10) == 0 {
					if _, err := n.Delete(key64(k)); err != nil {
						t.Error(err)
						return
					}
					delete(states[w], k)
					continue
				}
				if err := n.Put(key64(k), valueOf(uint64(k), version, size)); err != nil {
					t.Error(err)
					return
				}
				states[w][k] = version
			}
		})
	}
	least := uint64(20 << 20)
	if testing.Short() {
		least = 1 << 20
	}
	enough := func() bool {
		st := s.Stats()
		return st.Forwarded >= least && st.Compactions > 0
	}
	// A machine that is slow forwards less in its time.
	for end := time.Now().Add(waitLong); !enough() && time.Now().Before(end) && !t.Failed(); {
		time.Sleep(time.Millisecond)
	}
	stop.Store(true)
	wg.Wait()
	require.Positive(t, s.Stats().Forwarded)
	check := func(s *Store) {
		n := s.NewSession()
		live := 0
		for w := range writers {
			for i := range keys {
				k := w + writers*i
				value, err := n.Get(key64(k), nil)
				version, there := states[w][k]
				if !there {
					require.ErrorIs(t, err, ErrNotFound, "key %d", k)
					continue
				}
				live++
				require.NoError(t, err, "key %d", k)
				require.NoError(t, valueIs(value, uint64(k), version, size))
			}
		}
		count, err := s.LenExact(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, live, count.Keys)
		n.Close()
	}
	check(s)
	syncStore(t, s)
	image := mem.CrashImage(iotest.CrashOptions{})
	require.NoError(t, s.Close())
	again := openOn(t, image, nil)
	check(again)
	checkStore(t, again)
	require.NoError(t, again.Close())
}
