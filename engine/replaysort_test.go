package engine

import (
	"errors"
	"maps"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/epoch"
	"rskv/engine/internal/index"
	"rskv/engine/internal/record"
	"rskv/ioring/iotest"
)

// entriesOf is all chains of an index.
func entriesOf(x *index.Index) map[uint64]record.Addr {
	entries := map[uint64]record.Addr{}
	x.Range(func(hash, entry uint64) bool {
		entries[hash] = index.Address(entry)
		return true
	})
	return entries
}

// TestReplaySort: what several workers sort and raise differs from what one record after
// the other would leave: some are forgotten at the end, or with a batch that is full, an
// entry is lowered, a row has two of a chain. In one part and in many, in an index that
// grows meanwhile, with long rows, and with hardly any batch to spare.
func TestReplaySort(t *testing.T) {
	seed := newSeed(t)
	records := 40_000
	if testing.Short() {
		records = 12_000
	}
	for round, c := range []struct {
		bits, most uint8
		workers    int
		length     int64 // of the log: decides the parts
		parts      int
		chains     uint64
	}{
		{6, 6, 1, 0, 1, 150},
		{6, 6, 3, 0, 1, 150},
		{8, 16, 3, 1 << 30, 32, 9000},
		{8, 16, 2, 4 * 255 * 32, 2, 9000},
		{6, 16, 4, 1 << 30, 32, 30_000},
		{12, 12, 2, 1 << 30, 32, 300},
	} {
		s := &Store{epoch: epoch.New()}
		s.opt.Runner = GoRunner()
		var err error
		opt := index.Options{Bits: c.bits, MaxBits: c.most, Overflow: 4096, Drained: s.epoch.Bump}
		s.index, err = index.New(opt)
		require.NoError(t, err)
		p := &logPass{s: s, sort: newReplaySort(s, c.workers, c.length)}
		require.Len(t, p.sort.parts, c.parts)
		for range (c.workers - 1) * c.parts { // all but one a part that may be spared
			p.sort.free = p.sort.free.next
		}
		var wg sync.WaitGroup
		for i := range c.workers {
			w := &passWorker{pass: p, slot: s.epoch.Register(), batches: make([]*replayBatch, c.parts)}
			p.workers = append(p.workers, w)
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed+uint64(round), uint64(i)))
				for n := range records {
					hash := rng.Uint64N(c.chains) * 0x9e3779b97f4a7c15
					if err := w.add(hash, record.FirstAddr+record.Addr(n*c.workers+i)); err != nil {
						t.Errorf("round %d: %v", round, err)
						return
					}
				}
			})
		}
		wg.Wait()
		require.NoError(t, p.sort.finish(p.workers))
		for s.index.Growing() {
			s.index.Step()
		}
		require.NoError(t, s.index.Check())

		one, err := index.New(opt)
		require.NoError(t, err)
		for i := range c.workers {
			rng := rand.New(rand.NewPCG(seed+uint64(round), uint64(i)))
			for n := range records {
				hash := rng.Uint64N(c.chains) * 0x9e3779b97f4a7c15
				for one.Raise(hash, record.FirstAddr+record.Addr(n*c.workers+i)) != nil {
					one.Step() // it is growing
				}
			}
		}
		require.True(t, maps.Equal(entriesOf(one), entriesOf(s.index)), "round %d, %d workers, %d parts", round, c.workers, c.parts)
		if c.most > c.bits {
			require.Greater(t, s.index.Bits(), c.bits, "it has grown")
		}
		require.NoError(t, errors.Join(one.Free(), s.index.Free()))
		for _, w := range p.workers {
			w.slot.Release()
		}
	}
}

// TestReplaySort_Memory: the batches take more than 2 MiB, or a worker could wait for one
// for ever.
func TestReplaySort_Memory(t *testing.T) {
	for _, bits := range []uint8{0, 4, 20} {
		s := &Store{}
		var err error
		s.index, err = index.New(index.Options{Bits: bits})
		require.NoError(t, err)
		for workers := 1; workers <= passWorkersMax; workers++ {
			for _, length := range []int64{0, 1 << 16, 1 << 20, 1 << 50} {
				q := newReplaySort(s, workers, length)
				n := 0
				for b := q.free; b != nil; b = b.next {
					n++
				}
				require.LessOrEqual(t, n*4096, 2<<20)
				require.Greater(t, n, workers*len(q.parts))
				require.LessOrEqual(t, len(q.parts), 1<<bits)
			}
		}
		require.NoError(t, s.index.Free())
	}
}

// TestReplay_SameIndex: after Open an entry does not lead to the newest record of its
// chain, or there is one too many or too few.
func TestReplay_SameIndex(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 3))
	dev := newMem()
	writes := 20_000
	if testing.Short() {
		writes = 8000
	}
	for run := range 3 { // each leaves a span of its own
		s := openOn(t, dev, nil)
		n := s.NewSession()
		for i := range writes {
			key := key64(rng.IntN(3000 * (run + 1)))
			switch rng.IntN(8) {
			case 0:
				_, err := n.Delete(key)
				require.NoError(t, err)
			case 1:
				require.NoError(t, n.one(&Op{Kind: OpPut, Key: key, Value: key, TTL: 1_000_000}))
			default:
				require.NoError(t, n.Put(key, make([]byte, rng.IntN([]int{9, 200}[i/100%2]))))
			}
			if i%1000 == 0 {
				syncStore(t, s)
			}
		}
		n.Close()
		require.NoError(t, s.Close())
		dev = dev.CrashImage(iotest.CrashOptions{})
	}
	for _, procs := range []int{1, 2, 8} {
		old := runtime.GOMAXPROCS(procs)
		s := openOn(t, dev.CrashImage(iotest.CrashOptions{}), nil)
		runtime.GOMAXPROCS(old)
		want := map[uint64]record.Addr{}
		m := s.mu.manifest
		for _, span := range m.Spans[:len(m.Spans)-1] {
			r := s.newScan(m, span, span.Start)
			for r.at < span.End {
				a, w0, w1, body, err := r.next()
				require.NoError(t, err)
				if record.KindOf(w1) != record.System && w1&record.Invalid == 0 {
					hash := record.Hash(s.seed, body[:record.KeyLen(w0)]) & (1<<(s.index.Anchor()+15) - 1)
					want[hash] = max(want[hash], a)
				}
			}
			r.close()
		}
		require.Greater(t, len(want), 3000)
		require.Equal(t, want, entriesOf(s.index))
		require.NoError(t, s.Close())
	}
}
