package load

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/bench/internal/draw"
	"rskv/bench/internal/kv"
	"rskv/bench/internal/measure"
	"rskv/engine"
)

func open(t *testing.T) *kv.Engine {
	s, err := kv.OpenEngine(engine.Options{Dir: t.TempDir(), Memory: 64 << 20, CommitInterval: -1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// plain is a worker without batches, as other stores have.
type plain struct{ kv.Store }

type plainWorker struct{ kv.Worker }

func (p plain) Worker() (kv.Worker, error) {
	w, err := p.Store.Worker()
	return plainWorker{w}, err
}

// Operations counted but not done, or done on other keys, would be throughput
// that nobody has.
func TestLoad_CountsAndChecks(t *testing.T) {
	for _, size := range []int{1, 8, 300} {
		for _, batch := range []int{1, 7, 100} {
			for _, batches := range []bool{true, false} {
				s := open(t)
				var store kv.Store = s
				if !batches {
					store = plain{s}
				}
				l := Load{Workers: 3, Batch: batch, Reads: 0.7, Keys: 500, ValueSize: size, Times: true, Limit: 2000, Live: &Live{}}
				require.NoError(t, l.Preload(t.Context(), store))
				require.EqualValues(t, 500, s.Len())
				r, err := l.Run(t.Context(), store, time.Minute)
				require.NoError(t, err)
				require.GreaterOrEqual(t, r.Ops, uint64(6000))
				require.EqualValues(t, r.Ops, r.Times.TotalCount())
				require.EqualValues(t, r.Ops, l.Live.Ops.Load())
				require.InDelta(t, 0.7, float64(r.Reads)/float64(r.Ops), 0.05)
				require.Equal(t, r.Reads, r.Hits)
				require.EqualValues(t, 500, s.Len())
			}
		}
	}
}

// A value of another key must fail the run; keys that are not there are misses.
func TestLoad_WrongAndMissing(t *testing.T) {
	s := open(t)
	l := Load{Workers: 1, Reads: 1, Keys: 100, ValueSize: 20, Limit: 1000}
	require.NoError(t, l.Preload(t.Context(), s))
	l.Source = func(int) draw.Source { return draw.NewUniform(200, 1) }
	r, err := l.Run(t.Context(), s, time.Minute)
	require.NoError(t, err)
	require.InDelta(t, 0.5, float64(r.Hits)/float64(r.Reads), 0.1)
	session := s.NewSession()
	require.NoError(t, session.Put(AppendKey(nil, 9), make([]byte, 20)))
	session.Close()
	for _, batch := range []int{1, 10} {
		l.Batch = batch
		_, err = l.Run(t.Context(), s, time.Minute)
		require.ErrorIs(t, err, measure.ErrWrong)
	}
}

// A run must end with its context and with its time.
func TestLoad_Ends(t *testing.T) {
	s := open(t)
	l := Load{Workers: 2, Keys: 100, ValueSize: 20}
	begin := time.Now()
	r, err := l.Run(t.Context(), s, 250*time.Millisecond)
	require.NoError(t, err)
	require.NotEmpty(t, r.Over)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = l.Run(ctx, s, time.Hour)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(begin), 20*time.Second)
}

// The loop must not be what is measured.
func BenchmarkLoad(b *testing.B) {
	s, err := kv.OpenEngine(engine.Options{Dir: b.TempDir(), Memory: 64 << 20, CommitInterval: -1})
	require.NoError(b, err)
	defer s.Close()
	l := Load{Workers: 1, Batch: 32, Reads: 1, Keys: 10_000, ValueSize: 8, Limit: uint64(b.N)}
	require.NoError(b, l.Preload(b.Context(), s))
	b.ReportAllocs()
	b.ResetTimer()
	_, err = l.Run(b.Context(), s, time.Hour)
	require.NoError(b, err)
}
