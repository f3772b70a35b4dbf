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
)

// TestRaise: a chain does not end with its highest address, or has two entries,
// when several raise it at a time, with others who create entries, in rows that
// get longer and in a table that grows.
func TestRaise(t *testing.T) {
	seed := testSeed(t)
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
