package ycsb

import (
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/bench/internal/kv"
	"rskv/bench/internal/measure"
	"rskv/engine"
)

// A property passed over makes another workload than the one that was asked for.
func TestLoad_Errors(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"recordcount=0", `recordcount: "0" is no whole number`},
		{"recordcount", "not name=value"},
		{"fieldnames=x", `unknown property "fieldnames"`},
		{"readproportion=2", "readproportion"},
		{"readproportion=NaN", "readproportion"},
		{"requestdistribution=normal", "none of uniform, zipfian"},
		{"readproportion=0", "no operation has a proportion"},
		{"readallfields=false", "readallfields"},
		{"writeallfields=yes", "neither true nor false"},
		{"fieldcount=1048576", "a record of"},
		{"maxexecutiontime=-1", "seconds"},
		{"minscanlength=2000", "is above"},
		{"rskv.batch=4", ""},
	} {
		_, err := Load("c", []string{c.set})
		if c.want == "" {
			require.NoError(t, err)
			continue
		}
		require.ErrorContains(t, err, c.want, c.set)
	}
	_, err := Load("a", []string{"rskv.batch=4"})
	require.ErrorContains(t, err, "writeallfields=true")
	_, err = Load("g", nil)
	require.ErrorContains(t, err, "neither one of A to F nor a file")
	path := filepath.Join(t.TempDir(), "w")
	require.NoError(t, os.WriteFile(path, []byte("# mine\nrecordcount=5\nfieldlength : 20\nscannproportion=1\n"), 0o644))
	_, err = Load(path, nil)
	require.ErrorContains(t, err, path+`:4: unknown property "scannproportion"`)
	require.NoError(t, os.WriteFile(path, []byte("# mine\nrecordcount=5\nfieldlength : 20\nworkload=core\n"), 0o644))
	w, err := Load(path, []string{"fieldcount=3"})
	require.NoError(t, err)
	require.EqualValues(t, 5, w.Records)
	require.Equal(t, 60, w.Size())
}

// The shares of the six workloads are what everybody compares by.
func TestRun_AllWorkloads(t *testing.T) {
	shares := map[string][kinds]float64{
		"A": {read: 0.5, update: 0.5}, "B": {read: 0.95, update: 0.05}, "C": {read: 1}, "D": {read: 0.95, insert: 0.05},
		"E": {scan: 0.95, insert: 0.05}, "F": {read: 0.5, readModifyWrite: 0.5},
	}
	store := open(t)
	var space *Space
	for _, name := range []string{"workloada", "B", "c", "D", "E", "F"} {
		w, err := Load(name, []string{"recordcount=3000", "operationcount=4001", "threadcount=3", "fieldlength=10"})
		require.NoError(t, err)
		if space == nil {
			space = NewSpace(w)
			require.NoError(t, space.Preload(t.Context(), store))
			require.EqualValues(t, 3000, store.Len())
		}
		require.True(t, space.Fits(w))
		var live Live
		r, err := w.Run(t.Context(), store, space, 0, 1, &live)
		require.NoError(t, err)
		require.EqualValues(t, 4001, r.Ops)
		require.EqualValues(t, 4001, live.Ops.Load())
		require.EqualValues(t, 4001, r.Times.TotalCount())
		require.Equal(t, r.Reads, r.Hits, "%s: every record that was drawn is there", w.Name)
		for k, share := range shares[w.Name] {
			require.InDelta(t, share*4001, float64(r.Counts[k]), 150, "%s: %s", w.Name, Kinds[k])
		}
	}
	require.Equal(t, space.next.Load(), space.visible.Load(), "all inserts became visible")
	require.EqualValues(t, space.next.Load(), store.Len())
	require.Greater(t, space.next.Load(), uint64(3300))
}

// A stall must show in the latency of the operations that should have begun
// during it; from their actual start it would show in one only.
func TestRun_OpenLoop(t *testing.T) {
	w, err := Load("c", []string{"recordcount=100", "threadcount=1", "target=1000", "operationcount=600"})
	require.NoError(t, err)
	store := &stalling{Store: open(t), at: 100, stall: 200 * time.Millisecond}
	space := NewSpace(w)
	require.NoError(t, space.Preload(t.Context(), store.Store))
	r, err := w.Run(t.Context(), store, space, 0, 1, &Live{})
	require.NoError(t, err)
	require.EqualValues(t, 600, r.Ops)
	require.GreaterOrEqual(t, r.Elapsed, 599*time.Millisecond, "the last one begins then")
	late := float64(r.Times.TotalCount()) * (1 - float64(countBelow(r, 50*time.Millisecond)))
	require.Greater(t, late, 100.0, "150 of them began more than 50 ms late")
	require.Less(t, r.Service.ValueAtQuantile(90), int64(50*time.Millisecond))
}

// countBelow is the share of the intended latencies below d.
func countBelow(r *Result, d time.Duration) float64 {
	below := int64(0)
	for _, bar := range r.Times.Distribution() {
		if bar.To < int64(d) {
			below += bar.Count
		}
	}
	return float64(below) / float64(r.Times.TotalCount())
}

// Batches must do what single operations do.
func TestRun_Batch(t *testing.T) {
	w, err := Load("a", []string{"recordcount=1000", "operationcount=3200", "writeallfields=true", "rskv.batch=32", "insertorder=ordered"})
	require.NoError(t, err)
	store := open(t)
	space := NewSpace(w)
	require.NoError(t, space.Preload(t.Context(), store))
	r, err := w.Run(t.Context(), store, space, 0, 1, &Live{})
	require.NoError(t, err)
	require.EqualValues(t, 3200, r.Ops)
	require.EqualValues(t, r.Counts[read], r.Hits)
	require.InDelta(t, 1600, float64(r.Counts[update]), 200)
	require.EqualValues(t, 1000, store.Len())
}

// A value of another record must fail the run, not count as a hit.
func TestRun_WrongRecord(t *testing.T) {
	w, err := Load("c", []string{"recordcount=10", "operationcount=1000"})
	require.NoError(t, err)
	store := open(t)
	space := NewSpace(w)
	require.NoError(t, space.Preload(t.Context(), store))
	session := store.NewSession()
	require.NoError(t, session.Put(space.appendKey(nil, 3), newValue(w.Size(), 1)))
	session.Close()
	_, err = w.Run(t.Context(), store, space, 0, 1, &Live{})
	require.ErrorIs(t, err, measure.ErrWrong)
}

// "Latest" that prefers old records, or a hot spot that is not hot, is another
// distribution.
func TestChooser(t *testing.T) {
	draws := func(properties ...string) []int {
		w, err := Load("c", append(properties, "recordcount=1000"))
		require.NoError(t, err)
		c := newChooser(NewSpace(w), w, weights(w), 1)
		counts := make([]int, 1000)
		for range 100_000 {
			counts[c.record()]++
		}
		return counts
	}
	sum := func(list []int) (n int) {
		for _, c := range list {
			n += c
		}
		return n
	}
	latest := draws("requestdistribution=latest")
	require.Greater(t, latest[999], latest[990])
	require.Greater(t, sum(latest[500:]), 80_000)
	require.InDelta(t, 80_000, sum(draws("requestdistribution=hotspot")[:200]), 1000)
	for _, c := range draws("requestdistribution=sequential") {
		require.Equal(t, 100, c)
	}
	require.Less(t, sum(draws("requestdistribution=uniform")[:500]), 52_000)
	most := 0
	for _, c := range draws() {
		most = max(most, c)
	}
	require.Greater(t, most, 3000, "zipfian")
}

// A record must not be read before it is there, whoever inserts first.
func TestSpace_Inserted(t *testing.T) {
	w, err := Load("d", []string{"recordcount=10"})
	require.NoError(t, err)
	s := NewSpace(w)
	s.inserted(11)
	require.EqualValues(t, 10, s.visible.Load())
	s.inserted(10)
	require.EqualValues(t, 12, s.visible.Load())
	require.Equal(t, "user"+"6284781860667377211", string(s.appendKey(nil, 0)), "YCSB's first key")
	require.LessOrEqual(t, fnv(1), uint64(math.MaxInt64))
}

func open(t *testing.T) *kv.Engine {
	s, err := kv.OpenEngine(engine.Options{Dir: t.TempDir(), Memory: 64 << 20, CommitInterval: -1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// stalling is a store one of whose gets takes long.
type stalling struct {
	kv.Store
	at    int
	stall time.Duration
	mu    sync.Mutex
	gets  int // guarded by mu
}

func (s *stalling) Worker() (kv.Worker, error) {
	w, err := s.Store.Worker()
	return stallingWorker{w, s}, err
}

type stallingWorker struct {
	kv.Worker
	store *stalling
}

func (w stallingWorker) Get(dst, key []byte) ([]byte, bool, error) {
	w.store.mu.Lock()
	w.store.gets++
	slow := w.store.gets == w.store.at
	w.store.mu.Unlock()
	if slow {
		time.Sleep(w.store.stall)
	}
	return w.Worker.Get(dst, key)
}
