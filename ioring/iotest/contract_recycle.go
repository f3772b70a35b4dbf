package iotest

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
)

// Of discarded segments only as many as were asked for may stay. They must be the
// first that new segments are made of, must not be found under their old address,
// must hold what is written to them, and go when fewer are wanted.
func contractRecycle(t *testing.T, d ioring.Device) {
	unit, size := int64(d.Align().Offset), d.SegmentSize()
	write := func(off int64, n int64, b byte) {
		t.Helper()
		buf := Aligned(int(n))
		copy(buf, bytes.Repeat([]byte{b}, int(n)))
		_, err := Do(t, d, ioring.Write, off, buf)
		require.NoError(t, err)
	}
	spares := func(want int64) {
		t.Helper()
		require.Eventually(t, func() bool { return d.Counters().Spares == want }, waitMax, time.Millisecond)
	}
	d.Recycle(2)
	for i := range int64(5) {
		write(i*size, size, byte(i+1))
	}
	_, err := Do(t, d, ioring.Sync, 0, nil)
	require.NoError(t, err)
	require.NoError(t, d.Discard(4*size))
	spares(2)
	n, full := d.Room()
	require.Equal(t, 2, n, "they are room")
	require.False(t, full)
	begin, end := d.Extent()
	require.Equal(t, [2]int64{4 * size, 5 * size}, [2]int64{begin, end})
	got := Aligned(int(size))
	for i := range int64(4) {
		_, err := Do(t, d, ioring.Read, i*size, got[:unit])
		require.ErrorIs(t, err, ioring.ErrNoSegment)
	}
	for i := int64(5); i < 8; i++ {
		write(i*size+unit, unit, 'n')
		spares(max(0, 6-i))
		_, err := Do(t, d, ioring.Read, i*size, got)
		require.NoError(t, err)
		require.Equal(t, bytes.Repeat([]byte{'n'}, int(unit)), got[unit:2*unit])
		for _, b := range got[2*unit:] {
			require.Equal(t, got[0], b, "a recycled segment is one of those discarded, a new one is blank")
		}
	}
	require.EqualValues(t, 2, d.Counters().Recycled)
	_, err = Do(t, d, ioring.Read, 4*size, got)
	require.NoError(t, err)
	require.Equal(t, bytes.Repeat([]byte{5}, int(size)), got, "what was not discarded is untouched")

	// Prepare takes one too, and writes nothing.
	_, err = Do(t, d, ioring.Sync, 0, nil)
	require.NoError(t, err)
	require.NoError(t, d.Discard(6*size))
	spares(2)
	d.Prepare(10 * size)
	spares(1)
	require.Zero(t, d.Counters().PrepareBytes)
	write(9*size, unit, 'p')
	require.EqualValues(t, 3, d.Counters().Recycled)

	d.Recycle(0)
	spares(0)
	require.NoError(t, d.Discard(8*size))
	spares(0)
	_, err = Do(t, d, ioring.Sync, 0, nil)
	require.NoError(t, err)
	require.NoError(t, d.Close())
	d.Recycle(5)
}
