package engine

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest"
)

// TestScrub: damage under a running store is not found, or found where there is
// none, or only the first of several is.
func TestScrub(t *testing.T) {
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	fillKeys(t, n, 5000, 1)
	n.Close()
	require.NoError(t, s.Close())
	dev = dev.CrashImage(iotest.CrashOptions{})
	s = openOn(t, dev, nil) // a second span
	n = s.NewSession()
	fillKeys(t, n, 5000, 2)
	syncStore(t, s)
	fillKeys(t, n, 5000, 3) // not committed
	var list []Damage
	var done, total int64
	scrubbed := func() ScrubResult {
		list = nil
		res, err := s.Scrub(context.Background(), ScrubOptions{BytesPerSecond: -1, Progress: func(d, n int64) { done, total = d, n }},
			func(d Damage) { list = append(list, d) })
		require.NoError(t, err)
		require.Len(t, list, res.Damages)
		require.Equal(t, total, done)
		require.Equal(t, total, res.Bytes)
		return res
	}
	res := scrubbed()
	require.Empty(t, list)
	require.Greater(t, res.Records, uint64(10_000))
	require.Equal(t, s.log.Durable().Bytes(), res.Until)
	second := s.mu.manifest.Spans[1].Start.Bytes()
	places := []int64{20_000, second + 1000, second + 50_000, second + 50_800, res.Until - 5000}
	for _, at := range places {
		dev.Corrupt(at, func(b byte) byte { return b ^ 0x40 })
	}
	res = scrubbed()
	require.Len(t, list, len(places))
	for i, d := range list {
		require.LessOrEqual(t, d.From, places[i])
		require.Greater(t, d.Until, places[i])
		require.Less(t, d.Until-d.From, int64(200))
		require.Equal(t, segmentFile(1<<20, places[i]), d.File)
		require.ErrorIs(t, d.Err, errChecksum)
	}
	require.Positive(t, res.DamagedBytes)
	n.Close()
	require.NoError(t, s.Close())
	_, err := s.Scrub(context.Background(), ScrubOptions{}, nil)
	require.ErrorIs(t, err, ErrClosed)
}

// TestScrub_Rate: a scrub takes the whole disk, or does not end with its context.
func TestScrub_Rate(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("key"), make([]byte, 4<<20)))
	syncStore(t, s)
	began := time.Now()
	res, err := s.Scrub(context.Background(), ScrubOptions{BytesPerSecond: 16 << 20}, nil)
	require.NoError(t, err)
	require.Greater(t, res.Bytes, int64(4<<20))
	// The pause behind the last page is not waited for.
	require.Greater(t, time.Since(began), 200*time.Millisecond)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	began = time.Now()
	res, err = s.Scrub(ctx, ScrubOptions{BytesPerSecond: 1, Progress: func(done, _ int64) {
		if done > 0 {
			time.AfterFunc(30*time.Millisecond, cancel)
		}
	}}, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.Less(t, time.Since(began), 10*time.Second)
	require.EqualValues(t, s.opt.PageSize, res.Bytes, "the first page, and no other")
	n.Close()
	require.NoError(t, s.Close())
}

// TestScrub_Close: a store that is closed under a scrub waits for it, or the scrub
// reads memory that is gone.
func TestScrub_Close(t *testing.T) {
	s := openOn(t, newMem(), nil)
	n := s.NewSession()
	require.NoError(t, n.Put([]byte("key"), make([]byte, 4<<20)))
	syncStore(t, s)
	n.Close()
	started := make(chan struct{})
	first := true
	result := make(chan error, 1)
	go func() {
		_, err := s.Scrub(context.Background(), ScrubOptions{BytesPerSecond: 4 << 20, Progress: func(int64, int64) {
			if first {
				first = false
				close(started)
			}
		}}, nil)
		result <- err
	}()
	waitFor(t, "the first page", started)
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-result, ErrClosed)
}
