package index

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
)

// TestSweep: an entry that is needed goes, one that is not stays, or the index
// has two entries for one tag after creators and the sweep have met.
func TestSweep(t *testing.T) {
	x, err := New(Options{Bits: 4, MaxBits: 10, Overflow: 64, Room: func(int64) bool { return true }, Drained: func(f func()) { f() }, Wake: func() {}})
	require.NoError(t, err)
	defer func() { require.NoError(t, x.Free()) }()
	const keys = 400
	hashes := make([]uint64, keys)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range hashes {
		hashes[i] = rng.Uint64()
	}
	set := func(i int, a record.Addr) {
		for {
			slot, entry, err := x.FindOrCreate(hashes[i])
			if err == ErrBusy {
				x.Step()
				continue
			}
			require.NoError(t, err)
			if CAS(slot, entry, a) {
				return
			}
		}
	}
	for i := range hashes {
		set(i, record.Addr(1000+i))
	}
	for x.Step() {
	}
	const below = 1000 + keys/2
	var wg sync.WaitGroup
	wg.Go(func() { // some of those to be removed come back
		for i := range keys / 4 {
			set(i, record.Addr(5000+i))
		}
	})
	wg.Go(func() {
		for row := uint64(0); ; {
			if row, _ = x.Sweep(row, 3, below); row == 0 {
				return
			}
		}
	})
	wg.Wait()
	require.NoError(t, x.Check())
	_, removed := x.Sweep(0, 1<<20, below)
	require.Zero(t, removed, "the first sweep left something")
	for i := range keys {
		_, entry := x.Find(hashes[i])
		switch {
		case i < keys/4:
			require.EqualValues(t, 5000+i, Address(entry), "key %d", i)
		case i >= keys/2:
			require.EqualValues(t, 1000+i, Address(entry), "key %d", i)
		default:
			require.Zero(t, entry, "key %d", i)
		}
	}
}
