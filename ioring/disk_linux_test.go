package ioring_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rskv/ioring"
)

// smallDisk mounts a file system of 1 MiB.
func smallDisk(t *testing.T) string {
	dir := t.TempDir()
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,mode=0700")
	if errors.Is(err, unix.EPERM) {
		t.Skip("mounting a small file system is not permitted")
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, 0)) })
	return dir
}

// A full disk must fail writes that need a new segment and nothing else, and a
// later write must succeed once there is room. This needs the right to mount.
func TestDisk_Write_DiskFull(t *testing.T) {
	for name, options := range backends {
		t.Run(name, func(t *testing.T) {
			options.Dir = smallDisk(t)
			d := open(t, options)
			defer d.Close()
			last := int64(-1)
			var err error
			for err == nil {
				last++
				require.Less(t, last, int64(5))
				err = do(t, d, ioring.Write, last*testSegment, filled(4096, byte(last)))
			}
			require.ErrorIs(t, err, unix.ENOSPC)
			_, end := d.Extent()
			require.Equal(t, last*testSegment, end)
			require.NoError(t, do(t, d, ioring.Write, 4096, filled(4096, 'x')))
			require.NoError(t, do(t, d, ioring.Sync, 0, nil), "ENOSPC is not sticky")
			require.NoError(t, d.Discard(testSegment))
			require.NoError(t, do(t, d, ioring.Write, last*testSegment, filled(4096, 'y')))
			require.NoError(t, do(t, d, ioring.Sync, 0, nil))
			require.NoError(t, d.Close())
		})
	}
}

// A full disk must fail the stream, at the latest at its commit, leave the old
// content and give the room back. This needs the right to mount.
func TestDisk_CreateMeta_DiskFull(t *testing.T) {
	dir := smallDisk(t)
	d := open(t, ioring.Options{Dir: dir})
	defer d.Close()
	require.NoError(t, d.WriteMeta("index", []byte("old")))
	for range 3 {
		w, err := d.CreateMeta("index")
		require.NoError(t, err)
		n, err := w.Write(make([]byte, 2<<20))
		require.ErrorIs(t, err, unix.ENOSPC)
		require.Less(t, n, 2<<20)
		_, err = w.Write([]byte{1})
		require.ErrorIs(t, err, unix.ENOSPC, "nothing can follow a gap")
		require.ErrorIs(t, w.Commit(), unix.ENOSPC)
		require.Equal(t, []string{"index.meta"}, fileNames(t, dir))
	}
	data, err := d.ReadMeta("index")
	require.NoError(t, err)
	require.Equal(t, "old", string(data))
	require.NoError(t, d.WriteMeta("index", make([]byte, 512<<10)), "there is room again")
}

// A stream must not push everything else out of the page cache, neither when it
// is written nor when it is read.
func TestDisk_CreateMeta_PageCache(t *testing.T) {
	dir := t.TempDir()
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &st))
	if st.Type == unix.TMPFS_MAGIC {
		t.Skip("on tmpfs the page cache is the disk")
	}
	const size, most = 48 << 20, 16 << 20
	d := open(t, ioring.Options{Dir: dir})
	w, err := d.CreateMeta("index")
	require.NoError(t, err)
	piece := make([]byte, 256<<10)
	for range size / len(piece) {
		_, err = w.Write(piece)
		require.NoError(t, err)
	}
	require.LessOrEqual(t, cached(t, filepath.Join(dir, "index.meta.1.new")), 4<<20)
	require.NoError(t, w.Commit())
	r, err := d.OpenMeta("index")
	require.NoError(t, err)
	defer r.Close()
	for off := int64(0); off < size; off += int64(len(piece)) {
		_, err = r.ReadAt(piece, off)
		require.NoError(t, err)
	}
	require.Less(t, cached(t, filepath.Join(dir, "index.meta")), most)
}

// cached is how many bytes of a file are in the page cache.
func cached(t *testing.T, path string) int {
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	st, err := file.Stat()
	require.NoError(t, err)
	view, err := unix.Mmap(int(file.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_SHARED)
	require.NoError(t, err)
	defer unix.Munmap(view)
	pages := make([]byte, (len(view)+os.Getpagesize()-1)/os.Getpagesize())
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&view[0])), uintptr(len(view)), uintptr(unsafe.Pointer(&pages[0])))
	require.Zero(t, errno)
	count := 0
	for _, page := range pages {
		count += int(page & 1)
	}
	return count * os.Getpagesize()
}

// A full disk must be counted, leave no half-made segment, and take no room from
// the writes that come later. This needs the right to mount.
func TestDisk_Prepare_DiskFull(t *testing.T) {
	d := open(t, ioring.Options{Dir: smallDisk(t)})
	defer d.Close()
	const room = 3 // segments, and a little for the file system
	for index := range int64(room) {
		require.NoError(t, do(t, d, ioring.Write, index*testSegment, filled(4096, 'x')))
	}
	require.NoError(t, d.WriteMeta("a", make([]byte, 100<<10)))
	for failures := range uint64(3) {
		d.Prepare((room + 1) * testSegment)
		require.Eventually(t, func() bool { return d.Counters().PrepareErrors == failures+1 }, 30*time.Second, time.Millisecond)
	}
	_, end := d.Extent()
	require.EqualValues(t, room*testSegment, end)
	require.NoError(t, do(t, d, ioring.Sync, 0, nil), "it concerns nobody else")
	require.NoError(t, d.RemoveMeta("a"))
	require.NoError(t, do(t, d, ioring.Write, room*testSegment, filled(4096, 'y')))
	require.Zero(t, d.Counters().PrepareBytes)
	require.Zero(t, d.Counters().Errors)
}
