package ioring_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rskv/ioring"
)

// On a full disk the reserve must be there for writes, for metadata and after a
// restart, and must be said to be incomplete until there is room. This needs the
// right to mount.
func TestDisk_Reserve_DiskFull(t *testing.T) {
	dir := smallDisk(t) // four segments
	options := ioring.Options{Dir: filepath.Join(dir, "data"), Mode: ioring.PReadWrite}
	d := open(t, options)
	reserved := func(want int, wantFull bool) {
		t.Helper()
		require.Eventually(t, func() bool {
			d.Reserve(2)
			n, full := d.Room()
			return n == want && full == wantFull
		}, 30*time.Second, time.Millisecond)
	}
	reserved(2, false)
	require.NoError(t, do(t, d, ioring.Write, 0, filled(4096, 'a')))
	reserved(2, false)
	filler := filepath.Join(dir, "filler")
	fillUp(t, filler)
	require.NoError(t, do(t, d, ioring.Write, testSegment, filled(4096, 'b')))
	reserved(1, true)
	require.NoError(t, d.Close())

	// Left by a crash in the middle, it is no room.
	require.NoError(t, os.WriteFile(filepath.Join(options.Dir, "spare18-7"), nil, 0o600))
	d = open(t, options)
	n, _ := d.Room()
	require.Equal(t, 1, n)
	_, err := os.Stat(filepath.Join(options.Dir, "spare18-7"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, d.WriteMeta("a", make([]byte, 100<<10)), "metadata takes from it")
	n, _ = d.Room()
	require.Zero(t, n)
	fillUp(t, filler+"2")
	require.ErrorIs(t, do(t, d, ioring.Write, 2*testSegment, filled(4096, 'c')), unix.ENOSPC)
	for range 2 {
		require.NoError(t, d.WriteMeta("b", filled(100, 'd')), "the ballast has room for what is small")
		fillUp(t, filler+"3")
	}
	reserved(0, true)
	require.NoError(t, os.Remove(filler))
	require.NoError(t, os.Remove(filler+"3"))
	require.NoError(t, os.Remove(filler+"2"))
	require.NoError(t, d.Discard(testSegment))
	require.NoError(t, d.RemoveMeta("a"))
	require.NoError(t, d.RemoveMeta("b"))
	require.NoError(t, os.Remove(filepath.Join(options.Dir, "ballast")), "four segments are what fits")
	reserved(2, false)
	require.NoError(t, do(t, d, ioring.Write, 2*testSegment, filled(4096, 'c')))
	require.NoError(t, do(t, d, ioring.Sync, 0, nil))
}

// fillUp writes a file until the disk is full.
func fillUp(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	require.NoError(t, err)
	defer file.Close()
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	require.ErrorIs(t, err, unix.ENOSPC)
}

// What is kept beyond the reserve must not be in the way of anything: a stream of
// metadata takes it, piece by piece, and is whole. This needs the right to mount.
func TestDisk_Recycle_DiskFull(t *testing.T) {
	dir := smallDisk(t) // four segments
	d := open(t, ioring.Options{Dir: filepath.Join(dir, "data"), Mode: ioring.PReadWrite})
	d.Recycle(3)
	for i := range int64(3) {
		require.NoError(t, do(t, d, ioring.Write, i*testSegment, filled(4096, 'a')))
	}
	require.NoError(t, do(t, d, ioring.Sync, 0, nil))
	require.NoError(t, d.Discard(3*testSegment))
	require.EqualValues(t, 3, d.Counters().Spares)
	fillUp(t, filepath.Join(dir, "filler"))
	require.NoError(t, do(t, d, ioring.Write, 3*testSegment, filled(4096, 'b')), "the reserve has room")
	w, err := d.CreateMeta("snapshot")
	require.NoError(t, err)
	content := filled(testSegment+4096, 's')
	_, err = w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Commit())
	require.Zero(t, d.Counters().Spares)
	got, err := d.ReadMeta("snapshot")
	require.NoError(t, err)
	require.Equal(t, content, got)
}
