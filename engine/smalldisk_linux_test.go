package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest/loopfs"
)

// smallDiskBytes is the size of the disk in a file.
const smallDiskBytes = 64 << 20

// smallExt4 mounts an ext4 file system of 64 MiB, without blocks reserved for root.
func smallExt4(t *testing.T) string {
	t.Helper()
	return loopfs.ForTest(t, loopfs.Ext4, smallDiskBytes).Dir
}

// TestFault_SmallDisk: on a real disk, filled to the brim, something else than
// writes stops, what was acknowledged is gone afterwards, or the store does not
// notice that there is room again.
func TestFault_SmallDisk(t *testing.T) {
	for name, mode := range realBackends() {
		if testing.Short() && mode == ioring.URing {
			continue // the pool does; it is the slower part of both
		}
		t.Run(name, func(t *testing.T) { fillDisk(t, mode) })
	}
}

func fillDisk(t *testing.T, mode ioring.Mode) {
	disk := smallExt4(t)
	ballast := filepath.Join(disk, "ballast")
	require.NoError(t, writeAll(ballast, 12<<20))
	opt := Options{
		Dir: filepath.Join(disk, "data"), IO: mode, Memory: MemoryMin, PageSize: pageSizeMin, SegmentSize: 2 << 20,
		CommitInterval: 50 * time.Millisecond, CheckpointDistance: -1, LiveRatio: -1,
	}
	s, err := Open(opt)
	require.NoError(t, err)
	n := s.NewSession()
	const keys = 20_000
	for i := range keys {
		require.NoError(t, n.Put(key64(i), []byte("small")))
	}
	syncStore(t, s)
	const size = 20_000
	full := 0
	fill := func() {
		waitFor(t, "the disk being filled", background(func() {
			for err == nil {
				require.Less(t, full*size, smallDiskBytes)
				if err = n.Put(key64(keys+full), valueOf(uint64(full), 1, size)); err == nil {
					full++
				}
			}
		}))
	}
	fill()
	require.ErrorIs(t, err, ErrDiskFull)
	version := syncStore(t, s)
	// What is left on the disk goes to somebody else.
	_ = writeAll(filepath.Join(disk, "other"), smallDiskBytes)

	value, err := n.Get(key64(keys), nil)
	require.NoError(t, err, "reads go on")
	require.NoError(t, valueIs(value, 0, 1, size))
	require.ErrorIs(t, n.Put([]byte("new"), []byte("x")), ErrDiskFull)
	for i := range keys {
		_, err := n.Delete(key64(i))
		require.NoError(t, err, "delete %d", i)
	}
	require.Greater(t, syncStore(t, s), version)
	n.Close()
	require.NoError(t, s.Close(), "a store can be closed on a full disk")
	opt.IO = ioring.Auto // the ring cannot be tried where nothing can be written
	s, err = Open(opt)
	require.NoError(t, err, "and opened")
	n = s.NewSession()
	fill() // the rest of the last segment
	require.ErrorIs(t, err, ErrDiskFull)

	require.NoError(t, os.Remove(ballast))
	require.Eventually(t, func() bool {
		err := n.Put([]byte("new"), []byte("x"))
		require.True(t, err == nil || errors.Is(err, ErrDiskFull), err)
		return err == nil
	}, waitLong, time.Millisecond, "writes go on by themselves")
	_, err = s.Sync(context.Background())
	require.NoError(t, err)
	require.Equal(t, "ok", s.Stats().State)
	n.Close()
	require.NoError(t, s.Close())

	s, err = Open(opt)
	require.NoError(t, err)
	n = s.NewSession()
	for i := range full {
		value, err := n.Get(key64(keys+i), value)
		require.NoError(t, err, "value %d of %d", i, full)
		require.NoError(t, valueIs(value, uint64(i), 1, size))
	}
	for _, i := range []int{0, keys / 2, keys - 1} {
		_, err := n.Get(key64(i), nil)
		require.ErrorIs(t, err, ErrNotFound)
	}
	n.Close()
	require.NoError(t, s.Close())
}

// writeAll writes a file of n bytes, or as long as there is room for.
func writeAll(path string, n int) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for chunk := 1 << 20; n > 0 && chunk >= 512; {
		if _, err = file.Write(make([]byte, chunk)); err != nil {
			chunk /= 2
			continue
		}
		n -= chunk
	}
	return errors.Join(err, file.Sync())
}
