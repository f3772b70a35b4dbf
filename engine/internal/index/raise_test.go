package index

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/epoch"
	"rskv/engine/internal/record"
	"rskv/ioring/iotest/seeds"
)

// TestRaise: a chain does not end with its highest address, or has two entries,
// when several raise it at a time, with others who create entries, in rows that
// get longer and in a table that grows.
func TestRaise(t *testing.T) {
	seed := seeds.New(t)
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	hashOf := func(n uint64) uint64 { return n*109 | n<<40 } // all of them are chains of their own
	for round := range rounds {
		d := epoch.New()
		x, err := New(Options{Bits: uint8(1 + round%4), MaxBits: 10, Overflow: 4096, Drained: d.Bump})
		require.NoError(t, err)
		if round%2 == 0 {
			x.grow.trigger.Store(1 << 40)
		}
		const workers, hashes, each = 4, 300, 4000
		highest := make([]atomic.Uint64, hashes)
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed+uint64(round), uint64(w)))
				slot := d.Register()
				defer slot.Release()
				for range each {
					n := rng.Uint64N(hashes)
					addr := record.FirstAddr + record.Addr(rng.Uint64N(1<<40))
					for done := false; !done; {
						slot.Enter()
						var err error
						if rng.IntN(8) == 0 {
							_, _, err = x.FindOrCreate(hashOf(n))
						} else if err = x.Raise(hashOf(n), addr); err == nil {
							for old := highest[n].Load(); old < uint64(addr) && !highest[n].CompareAndSwap(old, uint64(addr)); old = highest[n].Load() {
							}
						}
						slot.Exit()
						if done = err == nil; err == ErrBusy {
							x.Step()
							runtime.Gosched()
						} else if err != nil {
							t.Error(err)
							return
						}
					}
				}
			})
		}
		wg.Wait()
		for x.Growing() {
			x.Step()
		}
		require.NoError(t, x.Check())
		for n := range uint64(hashes) {
			_, e := x.Find(hashOf(n))
			if want := record.Addr(highest[n].Load()); want != 0 {
				require.Equal(t, want, Address(e), "hash %d", n)
			}
		}
		require.NoError(t, x.Free())
	}
}

// TestRaiseAlone: the same, when each has rows of its own and needs no atomic operations;
// or somebody else's rows are touched, which the race detector sees.
func TestRaiseAlone(t *testing.T) {
	seed := seeds.New(t)
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	for round := range rounds {
		d := epoch.New()
		size := uint8(2 + round%4)
		x, err := New(Options{Bits: size, MaxBits: 10, Overflow: 4096, Drained: d.Bump})
		require.NoError(t, err)
		if round%2 == 0 {
			x.grow.trigger.Store(1 << 40)
		}
		hashOf := func(n uint64) uint64 {
			if n%16 == 0 {
				return n & (1<<size - 1) // the tag of free words
			}
			return n*109 | n<<40
		}
		const workers, hashes, each, most = 4, 300, 100, 100
		var wg sync.WaitGroup
		highest := [workers]map[uint64]record.Addr{}
		for w := range workers {
			highest[w] = map[uint64]record.Addr{}
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(seed+uint64(round), uint64(w)))
				slot := d.Register()
				defer slot.Release()
				for range each {
					var batch []uint64
					var addrs []record.Addr
					for range rng.IntN(most) {
						hash := hashOf(rng.Uint64N(hashes))
						if hash>>(size-2)%workers != uint64(w) {
							continue // of another's rows
						}
						addr := record.FirstAddr + record.Addr(rng.Uint64N(1<<40))
						batch, addrs = append(batch, hash), append(addrs, addr)
						key := place(x, hash)
						highest[w][key] = max(highest[w][key], addr)
					}
					for len(batch) > 0 {
						slot.Enter()
						n, err := x.RaiseAlone(batch, addrs)
						slot.Exit()
						batch, addrs = batch[n:], addrs[n:]
						if err != nil {
							require.ErrorIs(t, err, ErrBusy)
							runtime.Gosched()
						}
						x.Step()
					}
				}
			})
		}
		wg.Wait()
		for x.Growing() {
			x.Step()
		}
		require.NoError(t, x.Check())
		entries := 0
		x.Range(func(hash, entry uint64) bool {
			entries++
			return true
		})
		for w := range workers {
			entries -= len(highest[w])
			for hash, want := range highest[w] {
				_, e := x.Find(hash)
				require.Equal(t, want, Address(e), "round %d, hash %x", round, hash)
			}
		}
		require.Zero(t, entries, "chains with two entries, or of nobody")
		require.NoError(t, x.Free())
	}
}

// TestRaiseAlone_Full: an index that is full takes what it has, fails at the first that
// it has not, and says which.
func TestRaiseAlone_Full(t *testing.T) {
	x := newIndex(t, 0, 2)
	hash := func(n int) uint64 { return uint64(n+1) << 3 }
	const room = 3 * bucketEntries
	hashes, addrs := make([]uint64, room+2), make([]record.Addr, room+2)
	for i := range hashes {
		hashes[i], addrs[i] = hash(i), record.FirstAddr+record.Addr(i)
	}
	n, err := x.RaiseAlone(hashes, addrs)
	require.ErrorIs(t, err, ErrFull)
	require.Equal(t, room, n)
	for i := range addrs {
		addrs[i] += 100
	}
	n, err = x.RaiseAlone(hashes, addrs)
	require.ErrorIs(t, err, ErrFull)
	require.Equal(t, room, n)
	for i := range room {
		_, e := x.Find(hashes[i])
		require.Equal(t, addrs[i], Address(e))
	}
	require.NoError(t, x.Check())
}
