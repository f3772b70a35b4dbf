package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// numbered hands out n pairs with values of size bytes.
func numbered(n, size int) source {
	return func(yield func(pair, error) bool) {
		for i := range n {
			if !yield(pair{key: []byte{byte(i >> 8), byte(i)}, value: make([]byte, size)}, nil) {
				return
			}
		}
	}
}

// A source of any size must go through with the same memory: with answers that
// are slower than the source, what is under way stays bounded.
func TestTransfer_Bounded(t *testing.T) {
	for _, c := range []struct{ pairs, size int }{{20_000, 10}, {300, 1 << 20}, {12, 16 << 20}} {
		var bytesNow, bytesMost, batchesNow, batchesMost atomic.Int64
		tr := &transfer{failed: func(err error) { t.Error(err) }, handle: func(pair, answer) error { return nil }}
		tr.start = func(_ context.Context, b *batch) (func() ([]answer, error), error) {
			bytesMost.Store(max(bytesMost.Load(), bytesNow.Add(b.bytes)))
			batchesMost.Store(max(batchesMost.Load(), batchesNow.Add(1)))
			n := len(b.pairs)
			return func() ([]answer, error) {
				time.Sleep(time.Millisecond)
				bytesNow.Add(-b.bytes)
				batchesNow.Add(-1)
				return make([]answer, n), nil
			}, nil
		}
		require.NoError(t, tr.run(t.Context(), numbered(c.pairs, c.size)))
		require.EqualValues(t, c.pairs, tr.keys.Load())
		require.EqualValues(t, c.pairs*(c.size+2), tr.bytes.Load())
		require.LessOrEqual(t, bytesMost.Load(), int64(flightMax))
		require.LessOrEqual(t, batchesMost.Load(), int64(windowMax+2))
	}
}

// Wherever it fails, a transfer must end with that error, and not hang.
func TestTransfer_Ends(t *testing.T) {
	broken := errors.New("broken")
	ok := func(_ context.Context, b *batch) (func() ([]answer, error), error) {
		return func() ([]answer, error) { return make([]answer, len(b.pairs)), nil }, nil
	}
	fine := func(pair, answer) error { return nil }
	for name, tr := range map[string]*transfer{
		"start": {start: func(context.Context, *batch) (func() ([]answer, error), error) { return nil, broken }, handle: fine},
		"answers": {start: func(context.Context, *batch) (func() ([]answer, error), error) {
			return func() ([]answer, error) { return nil, broken }, nil
		}, handle: fine},
		"handle": {start: ok, handle: func(pair, answer) error { return broken }},
	} {
		t.Run(name, func(t *testing.T) { require.ErrorIs(t, tr.run(t.Context(), numbered(100_000, 100)), broken) })
	}
	t.Run("source", func(t *testing.T) {
		tr := &transfer{start: ok, handle: fine}
		require.ErrorIs(t, tr.run(t.Context(), func(yield func(pair, error) bool) { yield(pair{}, broken) }), broken)
	})
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		tr := &transfer{start: ok, handle: func(pair, answer) error { cancel(); return nil }}
		endless := func(yield func(pair, error) bool) {
			for yield(pair{key: []byte("k")}, nil) {
			}
		}
		require.ErrorIs(t, tr.run(ctx, endless), context.Canceled)
	})
}

// The progress line must tell the share that is done, and leave nothing behind.
func TestProgress(t *testing.T) {
	var done int64
	in := &input{total: func() int64 { return 200 }, done: func() int64 { return done }}
	tr := &transfer{}
	tr.keys.Store(1_234)
	tr.bytes.Store(5_000_000)
	line := progressOf(tr, in)
	done = 50
	require.Equal(t, "["+strings.Repeat("#", 6)+strings.Repeat("-", 18)+"]  25%  1,234 keys  5 MB  2.5 MB/s", line(2*time.Second))
	in.total = func() int64 { return -1 }
	require.Equal(t, "1,234 keys  5 MB  2.5 MB/s", line(2*time.Second))
	in.total = nil
	require.Equal(t, "1,234 keys  5 MB  2.5 MB/s", line(2*time.Second))

	var screen bytes.Buffer
	q := startProgress(&screen, func(time.Duration) string { return "12345" }) // as it may also draw by itself
	q.around(func() { screen.WriteString("rskv: something\n") })
	q.mu.Lock()
	q.draw("12345")
	q.mu.Unlock()
	q.end()
	require.True(t, strings.HasSuffix(screen.String(), "\r12345\r     \r"), "%q", screen.String())
}

// Large numbers are read by people.
func TestGrouped(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1000: "-1,000", -100: "-100", 1234567: "1,234,567"} {
		require.Equal(t, want, grouped(n))
	}
}
