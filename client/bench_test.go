package client_test

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"rskv/client"
	"rskv/ipc"
)

// The fake server's own part (a map under a lock) is in every figure: they are lower bounds.

// filled returns a client of a server that holds a thousand values of 100 bytes.
func filled(b *testing.B) (*client.Client, [][]byte) {
	s := newFakeServer(b)
	value := bytes.Repeat([]byte("v"), 100)
	keys := make([][]byte, 1000)
	for i := range keys {
		keys[i] = fmt.Appendf(nil, "k%015d", i)
		s.data[string(keys[i])] = value
	}
	return dialFake(b, s), keys
}

func BenchmarkBatchGet(b *testing.B) {
	for _, p := range []int{16, 128} {
		b.Run(fmt.Sprintf("P=%d", p), func(b *testing.B) {
			c, keys := filled(b)
			ctx := context.Background()
			batch := c.NewBatch()
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				for i := range p {
					batch.Get(keys[(n+i)%len(keys)])
				}
				if err := batch.Do(ctx); err != nil {
					b.Fatal(err)
				}
				for i := range p {
					if v, err := batch.Value(i); err != nil || len(v) != 100 {
						b.Fatal(err)
					}
				}
				n += p
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "ops/s")
		})
	}
}

// benchmarkGoroutines has n goroutines share one client.
func benchmarkGoroutines(b *testing.B, n int, op func(c *client.Client, key []byte, i int) error) {
	c, keys := filled(b)
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for g := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := g; i < b.N; i += n {
				if err := op(c, keys[i%len(keys)], i); err != nil {
					b.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

func BenchmarkGet(b *testing.B) {
	ctx := context.Background()
	for _, n := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("goroutines=%d", n), func(b *testing.B) {
			benchmarkGoroutines(b, n, func(c *client.Client, key []byte, _ int) error {
				_, err := c.Get(ctx, key)
				return err
			})
		})
	}
}

func BenchmarkPut(b *testing.B) {
	ctx := context.Background()
	value := make([]byte, 100)
	benchmarkGoroutines(b, 64, func(c *client.Client, key []byte, _ int) error {
		_, err := c.Put(ctx, key, value)
		return err
	})
}

func BenchmarkGetAsync(b *testing.B) {
	c, keys := filled(b)
	ctx := context.Background()
	const window = 128
	var futures [window]*client.Future[[]byte]
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if f := futures[i%window]; f != nil {
			if _, err := f.Wait(ctx); err != nil {
				b.Fatal(err)
			}
		}
		futures[i%window] = c.GetAsync(ctx, keys[i%len(keys)])
		i++
	}
	b.ReportMetric(float64(i)/b.Elapsed().Seconds(), "ops/s")
}

// The server answers every put at once, so that the client is what is measured: with a session it
// also copies each write into its log, and a commit is told once per thousand.
func BenchmarkBatchPutInstantServer(b *testing.B) {
	for _, with := range []string{"no session", "session"} {
		b.Run(with, func(b *testing.B) {
			s := newFakeServer(b)
			var written uint64
			s.instant = func(out []byte, q *ipc.Request) []byte {
				switch q.Method {
				case ipc.MethodHello:
					return ipc.AppendHello(ipc.AppendResultHeader(out, q.ID), &ipc.Hello{Session: [ipc.SessionSize]byte{1}})
				case ipc.MethodSync:
					out = ipc.AppendMapHeader(ipc.AppendResultHeader(out, q.ID), 1)
					return ipc.AppendUint(ipc.AppendStr(out, "durable"), written)
				}
				if written++; with == "session" && written%1000 == 0 {
					out = ipc.AppendDurableNotification(out, written)
				}
				return ipc.AppendBoolResult(out, q.ID, true)
			}
			var opts []client.Option
			if with == "session" {
				opts = append(opts, client.WithSession())
			}
			c := dialFake(b, s, opts...)
			ctx := context.Background()
			key, value := []byte("k000000000000000"), bytes.Repeat([]byte("v"), 100)
			batch := c.NewBatch()
			const p = 128
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				for range p {
					batch.Put(key, value)
				}
				if err := batch.Do(ctx); err != nil {
					b.Fatal(err)
				}
				n += p
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "ops/s")
		})
	}
}

// The server answers every get at once with the same value, so that the client is what is measured.
func BenchmarkBatchGetInstantServer(b *testing.B) {
	s := newFakeServer(b)
	value := bytes.Repeat([]byte("v"), 100)
	s.instant = func(out []byte, q *ipc.Request) []byte { return ipc.AppendBinResult(out, q.ID, value) }
	c := dialFake(b, s)
	ctx := context.Background()
	key := []byte("k000000000000000")
	batch := c.NewBatch()
	const p = 128
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		for range p {
			batch.Get(key)
		}
		if err := batch.Do(ctx); err != nil {
			b.Fatal(err)
		}
		n += p
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "ops/s")
}
