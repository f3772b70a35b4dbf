package index

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
)

const (
	benchEntries = 10_000_000
	benchBits    = 21 // 4.8 entries a bucket
	benchBatch   = 32
	benchProbes  = 1 << 20
)

// benchIndex is filled once: it takes seconds.
var benchIndex = sync.OnceValues(func() (*Index, error) {
	x, err := New(Options{Bits: benchBits, Overflow: 1 << 20})
	if err != nil {
		return nil, err
	}
	hashes := make([]uint64, benchBatch)
	for n := uint64(0); n < benchEntries; n += benchBatch {
		for i := range hashes {
			hashes[i] = goodHash(n + uint64(i))
		}
		x.Prefetch(hashes)
		for i, hash := range hashes {
			slot, e, err := x.FindOrCreate(hash)
			if err != nil {
				return nil, err
			}
			CAS(slot, e, record.Addr(n+uint64(i)+100))
		}
	}
	return x, nil
})

func benchSetup(b *testing.B) (*Index, []uint64) {
	x, err := benchIndex()
	require.NoError(b, err)
	probes := make([]uint64, benchProbes)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range probes {
		probes[i] = goodHash(rnd.Uint64N(benchEntries))
	}
	b.ReportAllocs()
	b.ResetTimer()
	return x, probes
}

var sink uint64

func BenchmarkIndex_Find(b *testing.B) {
	x, probes := benchSetup(b)
	var last uint64
	for i := range b.N {
		// Each probe waits for the one before, as a lone caller does.
		_, e := x.Find(probes[(uint64(i)+last&1)%benchProbes])
		last = e
	}
	sink = last
}

func BenchmarkIndex_FindIndependent(b *testing.B) {
	x, probes := benchSetup(b)
	var sum uint64
	for i := range b.N {
		_, e := x.Find(probes[i%benchProbes])
		sum += e
	}
	sink = sum
}

func BenchmarkIndex_FindBatch32(b *testing.B) {
	x, probes := benchSetup(b)
	var sum uint64
	for i := 0; i < b.N; i += benchBatch {
		at := i % benchProbes
		batch := probes[at : at+benchBatch]
		x.Prefetch(batch)
		for _, hash := range batch {
			_, e := x.Find(hash)
			sum += e
		}
	}
	sink = sum
}

func BenchmarkIndex_CASBatch32(b *testing.B) {
	x, probes := benchSetup(b)
	for i := 0; i < b.N; i += benchBatch {
		at := i % benchProbes
		batch := probes[at : at+benchBatch]
		x.Prefetch(batch)
		for _, hash := range batch {
			slot, e, err := x.FindOrCreate(hash)
			if err != nil || !CAS(slot, e, Address(e)^1<<40) {
				b.Fatal("no such entry")
			}
		}
	}
}

// BenchmarkIndex_Step splits chunks of a table of 4.3 entries a bucket: what a
// creator who helps has to wait. The longest is that of the machine, if it is
// busy; a page fault would show in the mean as well.
func BenchmarkIndex_Step(b *testing.B) {
	const tableBits = 18
	var x *Index
	var longest time.Duration
	for range b.N {
		if x == nil || !x.Growing() {
			b.StopTimer()
			if x != nil {
				require.NoError(b, x.Free())
			}
			var err error
			x, err = New(Options{Bits: tableBits, MaxBits: tableBits + 1})
			require.NoError(b, err)
			for n := uint64(0); !x.Growing(); n++ {
				slot, e, err := x.FindOrCreate(goodHash(n))
				require.NoError(b, err)
				CAS(slot, e, record.Addr(n+100))
			}
			b.StartTimer()
		}
		x.Prepare()
		begin := time.Now()
		x.Step()
		longest = max(longest, time.Since(begin))
	}
	b.StopTimer()
	b.ReportMetric(float64(longest)/1e3, "us-longest")
	require.NoError(b, x.Free())
}
