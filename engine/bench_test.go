package engine

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/bits"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// The benchmarks read and write keys of 8 B, all in memory. The figures of
// bench/README.md are those of ten million with values of 8 B.
var (
	benchKeys  = flag.Int("bench.keys", 100_000, "keys of the benchmarks in memory")
	benchValue = flag.Int("bench.value", 8, "bytes of their values, at least 8")
)

const (
	benchBatch = 32
	// benchDelta is what is added to values, whose low bits are the key.
	benchDelta = 1 << 40
)

// benchRun is one goroutine of a benchmark: a batch whose keys it draws.
type benchRun struct {
	session *Session
	state   uint64
	keys    uint64
	ops     [benchBatch]Op
	keyRoom [benchBatch]uint64
}

func openBench(t testing.TB) *Store {
	s, err := Open(Options{
		Dir: t.TempDir(), Memory: int64(*benchKeys)*int64(100+*benchValue) + 128<<20, CommitInterval: -1,
		IndexBits: bits.Len(uint(*benchKeys)/4 - 1),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	r := newBenchRun(s, OpPut)
	defer r.session.Close()
	for k := 0; k < *benchKeys; k += benchBatch {
		for i := range r.ops {
			r.set(i, uint64(k+i))
		}
		r.session.Do(r.ops[:])
	}
	return s
}

var benchSeed atomic.Uint64

func newBenchRun(s *Store, kind OpKind) *benchRun {
	r := &benchRun{session: s.NewSession(), state: benchSeed.Add(1) << 32, keys: uint64(*benchKeys)}
	for i := range r.ops {
		op := &r.ops[i]
		op.Kind, op.Delta = kind, benchDelta
		op.Key = wordBytes(&r.keyRoom[i])
		op.Value = make([]byte, *benchValue)
	}
	return r
}

func wordBytes(w *uint64) []byte { return unsafe.Slice((*byte)(unsafe.Pointer(w)), 8) }

// draw gives entry i of the batch a key, and the value that goes with it.
func (r *benchRun) draw(i int) uint64 {
	r.state += 0x9E3779B97F4A7C15
	x := r.state
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	k, _ := bits.Mul64(x^x>>31, r.keys)
	r.set(i, k)
	return k
}

func (r *benchRun) set(i int, k uint64) {
	r.keyRoom[i] = k
	binary.LittleEndian.PutUint64(r.ops[i].Value, k)
}

// batch runs a batch of drawn keys.
func (r *benchRun) batch() error {
	for i := range r.ops {
		r.draw(i)
	}
	r.session.Do(r.ops[:])
	for i := range r.ops {
		op := &r.ops[i]
		if op.Err != nil || !op.Found || op.Kind == OpGet && binary.LittleEndian.Uint64(op.Value)%benchDelta != r.keyRoom[i] {
			return fmt.Errorf("key %d: %t %x, %w", r.keyRoom[i], op.Found, op.Value, op.Err)
		}
	}
	return nil
}

func (r *benchRun) get() error {
	k := r.draw(0)
	v, err := r.session.Get(r.ops[0].Key, r.ops[0].Value)
	if err == nil && binary.LittleEndian.Uint64(v)%benchDelta != k {
		err = fmt.Errorf("key %d has %x", k, v)
	}
	return err
}

func (r *benchRun) put() error {
	r.draw(0)
	return r.session.Put(r.ops[0].Key, r.ops[0].Value)
}

// benchPaths are the hot paths: what they do counts as so many operations.
var benchPaths = []struct {
	name string
	kind OpKind
	ops  int
	run  func(*benchRun) error
}{
	{"get/batch", OpGet, benchBatch, (*benchRun).batch},
	{"put/batch", OpPut, benchBatch, (*benchRun).batch},
	{"add/batch", OpAdd, benchBatch, (*benchRun).batch},
	{"get/single", OpGet, 1, (*benchRun).get},
	{"put/single", OpPut, 1, (*benchRun).put},
}

// BenchmarkStore: ns/op are of one operation, in a batch too.
func BenchmarkStore(b *testing.B) {
	s := openBench(b)
	for _, path := range benchPaths {
		b.Run(path.name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r := newBenchRun(s, path.kind)
				defer r.session.Close()
				for n := 0; pb.Next(); n++ {
					if n%path.ops != 0 {
						continue
					}
					if err := path.run(r); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// TestStore_NoAllocations: a hot path of the engine makes garbage.
func TestStore_NoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := openBench(t)
	for _, path := range benchPaths {
		r := newBenchRun(s, path.kind)
		var err error
		require.Zero(t, testing.AllocsPerRun(1000, func() { err = errors.Join(err, path.run(r)) }), path.name)
		require.NoError(t, err)
		r.session.Close()
	}
}
