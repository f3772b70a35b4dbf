//go:build unix

package ioring_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
)

// What a crash leaves of a stream must be gone after the next open and never be
// listed; files of others that look alike must survive.
func TestDisk_CreateMeta_Leftovers(t *testing.T) {
	dir, crashed := t.TempDir(), t.TempDir()
	d := open(t, ioring.Options{Dir: dir})
	require.NoError(t, d.WriteMeta("index", []byte("old")))
	w, err := d.CreateMeta("index")
	require.NoError(t, err)
	_, err = w.Write(bytes.Repeat([]byte("new"), 1000))
	require.NoError(t, err)
	require.Len(t, fileNames(t, dir), 2, "a stream is a file")
	require.NoError(t, os.CopyFS(crashed, os.DirFS(dir)))
	foreign := []string{"index.meta.new", "index.meta.x.new", "index.meta.01.new", ".a.meta.1.new", "index.1.new", "index.meta.2.new.old", "1.new"}
	for _, name := range foreign {
		require.NoError(t, os.WriteFile(filepath.Join(crashed, name), nil, 0o600))
	}

	again := open(t, ioring.Options{Dir: crashed})
	data, err := again.ReadMeta("index")
	require.NoError(t, err)
	require.Equal(t, "old", string(data))
	names, err := again.ListMeta()
	require.NoError(t, err)
	require.Equal(t, []string{"index"}, names)
	left := append(foreign, "index.meta")
	slices.Sort(left)
	require.Equal(t, left, fileNames(t, crashed))

	require.NoError(t, d.Close())
	require.Equal(t, []string{"index.meta"}, fileNames(t, dir), "closing throws open streams away")
}

// An aborted stream and a replaced content must leave nothing behind.
func TestDisk_CreateMeta_NoTrace(t *testing.T) {
	dir := t.TempDir()
	d := open(t, ioring.Options{Dir: dir})
	before := openFiles(t)
	for _, commit := range []bool{false, true, true} {
		w, err := d.CreateMeta("index")
		require.NoError(t, err)
		_, err = w.Write(make([]byte, 5<<20))
		require.NoError(t, err)
		if commit {
			require.NoError(t, w.Commit())
		} else {
			require.NoError(t, w.Abort())
			require.Empty(t, fileNames(t, dir))
		}
	}
	require.Equal(t, []string{"index.meta"}, fileNames(t, dir))
	require.Equal(t, before, openFiles(t))
}

// fileNames lists a directory, sorted.
func fileNames(t *testing.T, dir string) []string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	names := []string{}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
