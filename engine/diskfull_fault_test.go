package engine

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest"
)

// TestFault_Reserve: writes take the last of a full disk, so that nothing can be
// deleted, nothing that was acknowledged can become durable, or the store can not
// be opened again.
func TestFault_Reserve(t *testing.T) {
	const segments = 12 // of 1 MiB
	dev := iotest.NewMem(iotest.MemOptions{SegmentSize: 1 << 20, BufferBytes: 2 << 20, Segments: segments})
	s := openOn(t, dev, nil)
	n := s.NewSession()
	const keys = 30_000 // their tombstones are longer than a page
	for i := range keys {
		require.NoError(t, n.Put(key64(i), []byte("small")))
	}
	syncStore(t, s) // from here on a delete is a new record
	full, value := 0, make([]byte, 60<<10)
	waitFor(t, "the disk being filled", background(func() {
		for err := error(nil); err == nil; full++ {
			err = n.Put(key64(keys+full), value)
			if err != nil {
				require.ErrorIs(t, err, ErrDiskFull)
			}
		}
	}))
	full--
	require.ErrorContains(t, s.Full(), "file system")
	require.Less(t, full*len(value), segments<<20)
	version := syncStore(t, s)
	require.Equal(t, "disk full", s.Stats().State)
	require.ErrorIs(t, n.Put(key64(keys), value), ErrDiskFull)
	require.ErrorIs(t, n.Put([]byte("new"), nil), ErrDiskFull)

	for i := range keys {
		there, err := n.Delete(key64(i))
		require.NoError(t, err, "key %d of a full store", i)
		require.True(t, there)
		if i%500 == 0 {
			require.ErrorIs(t, n.Put(key64(keys), value), ErrDiskFull, "a write takes what is for tombstones")
		}
	}
	require.Greater(t, syncStore(t, s), version, "what was deleted on a full disk")

	// As a crash leaves it, with no more room.
	image := dev.CrashImage(iotest.CrashOptions{})
	re := openOn(t, image, nil)
	m := re.NewSession()
	_, err := m.Get(key64(keys), nil)
	require.NoError(t, err)
	_, err = m.Delete(key64(keys))
	require.NoError(t, err)
	m.Close()
	checkLen(t, re, full-1)
	require.NoError(t, re.Close())

	dev.SetRoom(0)
	require.Eventually(t, func() bool { return n.Put([]byte("after"), value) == nil }, waitLong, time.Millisecond)
	_, err = s.Sync(context.Background())
	require.NoError(t, err)
	require.Equal(t, "ok", s.Stats().State)
	n.Close()
	checkLen(t, s, full+1)
	require.NoError(t, s.Close())
}
