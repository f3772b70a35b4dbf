package iotest

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
)

// Room that is reserved must not count as a segment, must go to the first writes
// into new segments, zero where they did not write, and must be made again when
// asked for.
func contractReserve(t *testing.T, d ioring.Device) {
	reserve := func(want int) {
		require.Eventually(t, func() bool {
			d.Reserve(want)
			n, full := d.Room()
			require.False(t, full)
			return n == want
		}, waitMax, time.Millisecond)
	}
	reserve(2)
	_, end := d.Extent()
	require.Zero(t, end)
	unit, size := int64(d.Align().Offset), d.SegmentSize()
	data := bytes.Repeat([]byte{7}, int(unit))
	block := Aligned(int(unit))
	copy(block, data)
	for i := range int64(3) {
		_, err := Do(t, d, ioring.Write, i*size+unit, block)
		require.NoError(t, err)
		n, full := d.Room()
		require.Equal(t, max(0, 1-int(i)), n, "it is taken first")
		require.False(t, full)
	}
	_, end = d.Extent()
	require.Equal(t, 3*size, end)
	got := Aligned(int(size))
	for i := range int64(3) {
		_, err := Do(t, d, ioring.Read, i*size, got)
		require.NoError(t, err)
		require.Equal(t, data, got[unit:2*unit])
		clear(got[unit : 2*unit])
		require.True(t, bytes.Equal(make([]byte, size), got), "segment %d is not blank", i)
	}
	_, err := Do(t, d, ioring.Sync, 0, nil)
	require.NoError(t, err)
	reserve(3)
	d.Reserve(1)
	n, full := d.Room()
	require.Equal(t, 3, n, "what is there stays")
	require.False(t, full)
	require.NoError(t, d.Close())
	d.Reserve(5)
}
