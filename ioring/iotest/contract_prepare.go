package iotest

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest/seeds"
)

// A prepared segment must be there, be zero and be whole; odd requests and those
// for segments that exist must do nothing.
func contractPrepare(t *testing.T, d ioring.Device) {
	unit, size := d.Align().Offset, d.SegmentSize()
	for _, until := range []int64{0, -1, math.MinInt64, math.MaxInt64} {
		d.Prepare(until)
	}
	data := Aligned(int(size))
	data[0], data[size-1] = 1, 2
	_, err := Do(t, d, ioring.Write, 2*size, data)
	require.NoError(t, err)
	d.Prepare(2*size + 1)
	d.Prepare(3 * size)
	for i, until := range []int64{3*size + 1, 5 * size} { // the first address of segment 3, the last of 4
		d.Prepare(until)
		d.Prepare(until)
		zeros := uint64(i+1) * uint64(size)
		require.Eventually(t, func() bool { return d.Counters().PrepareBytes == zeros }, waitMax, time.Millisecond)
	}
	begin, end := d.Extent()
	require.Equal(t, [2]int64{2 * size, 5 * size}, [2]int64{begin, end})
	got := Aligned(int(size))
	for index, want := range map[int64][]byte{2: data, 3: make([]byte, size), 4: make([]byte, size)} {
		_, err = Do(t, d, ioring.Read, index*size, got)
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got), "segment %d", index)
	}
	_, err = Do(t, d, ioring.Write, 3*size+int64(unit), data[:unit])
	require.NoError(t, err)
	_, err = Do(t, d, ioring.Sync, 0, nil)
	require.NoError(t, err)
	d.Prepare(4 * size)
	_, err = Do(t, d, ioring.Read, 3*size+int64(unit), got[:unit])
	require.NoError(t, err)
	require.Equal(t, data[:unit], got[:unit])
	require.Zero(t, d.Counters().PrepareErrors)
	require.NoError(t, d.Discard(5*size))
	require.NoError(t, d.Close())
	d.Prepare(9 * size)
}

// What has been written must never be zeroed, whether the write comes before,
// while or after the segment is prepared: workers write random runs of blocks into
// segments that are just being prepared, and the model knows each block.
func contractPrepareRandom(t *testing.T, d ioring.Device) {
	seed := seeds.New(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	unit, size := int64(d.Align().Offset), d.SegmentSize()
	blocks := size / max(unit, 512)
	const workers = 3
	rounds := int64(30)
	if testing.Short() {
		rounds = 10
	}
	var written []map[int64]bool // by segment and worker: its blocks
	for round := range rounds {
		if rng.IntN(4) > 0 {
			d.Prepare((round + 1) * size) // otherwise the writes come first
		}
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond)
		var group sync.WaitGroup
		for w := range int64(workers) {
			mine := make(map[int64]bool)
			written = append(written, mine)
			group.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(round*workers+w+1)))
				if err := writeShare(d, rng, round*size, size/blocks, blocks, w, workers, mine); err != nil {
					t.Error(err)
				}
				d.Prepare((round + 1) * size)
			})
		}
		group.Wait()
		for past := range round + 1 {
			if past == round || rng.IntN(8) == 0 {
				requireBlocks(t, d, past*size, size/blocks, blocks, written[past*workers:][:workers])
			}
		}
	}
	for round := range rounds {
		requireBlocks(t, d, round*size, size/blocks, blocks, written[round*workers:][:workers])
	}
}

// writeShare writes runs of those blocks of a segment whose number is share modulo
// shares, as a sequential or a random writer would.
func writeShare(d ioring.Device, rng *rand.Rand, base, length, blocks, share, shares int64, mine map[int64]bool) error {
	sequential := rng.IntN(2) == 0
	done := make(chan error, 1)
	for i := range min(blocks/shares, 24) {
		block := rng.Int64N(blocks/shares)*shares + share
		if sequential {
			block = i*shares + share
		}
		buf := Aligned(int(length))
		stamp(buf, base+block*length, 1)
		op := &ioring.Op{Kind: ioring.Write, Off: base + block*length, Buf: buf, Done: func(op *ioring.Op) { done <- op.Err }}
		d.Submit([]*ioring.Op{op})
		if err := <-done; err != nil {
			return fmt.Errorf("write at %d: %w", op.Off, err)
		}
		mine[block] = true
	}
	return nil
}

// requireBlocks compares a segment with what was written to it.
func requireBlocks(t *testing.T, d ioring.Device, base, length, blocks int64, written []map[int64]bool) {
	t.Helper()
	got := Aligned(int(blocks * length))
	_, err := Do(t, d, ioring.Read, base, got)
	require.NoError(t, err)
	want := make([]byte, length)
	for block := range blocks {
		clear(want)
		for _, mine := range written {
			if mine[block] {
				stamp(want, base+block*length, 1)
			}
		}
		part := got[block*length:][:length]
		require.True(t, bytes.Equal(want, part), "block %d of the segment at %d: %x, want %x", block, base, part[:8], want[:8])
	}
}
