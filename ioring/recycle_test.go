//go:build unix

package ioring

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// recycled are the names of the kept files in a device's directory.
func recycled(t *testing.T, d *disk) (names []string) {
	t.Helper()
	all, err := d.volume.list()
	require.NoError(t, err)
	for _, name := range all {
		if strings.HasPrefix(name, recycledPrefix) {
			names = append(names, name)
		}
	}
	return names
}

// A segment that somebody still reads, or that the preparer still fills, must not
// become another one: the late read would find foreign bytes, the late zeros would
// destroy new ones.
func TestVolume_Discard_InUse(t *testing.T) {
	d := openPrepare(t)
	v := d.volume
	d.Recycle(8)
	block := bytes.Repeat([]byte{'a'}, 4096)
	for i := range int64(2) {
		s, err := v.writable(i*prepareSegment, 4096)
		require.NoError(t, err)
		_, err = s.file.WriteAt(alignedCopy(t, block), 0)
		require.NoError(t, err)
		s.release()
	}
	reading, err := v.readable(0)
	require.NoError(t, err)
	blank, file, err := v.makeBlank(2)
	require.NoError(t, err)
	require.NoError(t, d.Discard(3*prepareSegment))
	require.Len(t, recycled(t, d), 1, "only the one that nobody uses")

	// What is made next does not show through the file that is being read.
	for i := int64(3); i < 6; i++ {
		s, err := v.writable(i*prepareSegment, 4096)
		require.NoError(t, err)
		_, err = s.file.WriteAt(alignedCopy(t, bytes.Repeat([]byte{'b'}, 4096)), 0)
		require.NoError(t, err)
		s.release()
	}
	got := alignedCopy(t, block)
	clear(got)
	_, err = reading.file.ReadAt(got, 0)
	require.NoError(t, err)
	require.Equal(t, block, got)
	reading.release()
	require.NoError(t, d.prepares.fill(blank, file), "it notices")
	require.NoError(t, file.Close())
	require.Zero(t, d.Counters().PrepareBytes)
}

func alignedCopy(t *testing.T, b []byte) []byte {
	memory, err := AllocMemory(int64(len(b)))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, memory.Free()) })
	copy(memory.Bytes(), b)
	return memory.Bytes()
}

// What was kept must be found by the next process and be used before blank room is;
// a file that cannot be one, or has another spelling, must not be.
func TestVolume_Recycled_Reopen(t *testing.T) {
	dir := t.TempDir()
	open := func() *disk {
		d, err := Open(Options{Dir: dir, SegmentSize: prepareSegment, BufferBytes: 1 << 20})
		require.NoError(t, err)
		return d.(*disk)
	}
	d := open()
	d.Recycle(3)
	for i := range int64(3) {
		s, err := d.volume.writable(i*prepareSegment, 4096)
		require.NoError(t, err)
		s.release()
	}
	require.NoError(t, d.Discard(2*prepareSegment))
	require.Equal(t, []string{"recycled20-0", "recycled20-1"}, recycled(t, d))
	require.NoError(t, d.Close())

	require.NoError(t, os.WriteFile(filepath.Join(dir, "recycled20-7"), make([]byte, 100), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "recycled20-03"), []byte("somebody's"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "spare20-0"), make([]byte, prepareSegment), 0o600))
	d = open()
	require.EqualValues(t, 3, d.Counters().Spares)
	require.Equal(t, []string{"recycled20-0", "recycled20-03", "recycled20-1"}, recycled(t, d))
	for i := int64(3); i < 6; i++ {
		s, err := d.volume.writable(i*prepareSegment, 4096)
		require.NoError(t, err)
		require.EqualValues(t, min(i-2, 2), d.Counters().Recycled)
		s.release()
	}
	require.Equal(t, []string{"recycled20-03"}, recycled(t, d))

	// A name that cannot be changed is a segment that is removed.
	d.Recycle(1)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "recycled20-0"), 0o700))
	require.NoError(t, d.Discard(4*prepareSegment))
	require.Zero(t, d.Counters().Spares)
	begin, _ := d.Extent()
	require.EqualValues(t, 4*prepareSegment, begin)
	require.NoError(t, d.Close())
}
