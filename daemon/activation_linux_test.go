package daemon

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestTakeOver: sockets that are mixed up, or taken from one that is not ours.
func TestTakeOver(t *testing.T) {
	dir, err := os.MkdirTemp("", "rskvd")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	// next opens sockets on descriptors that follow one another.
	next := func(kinds ...string) int {
		first := 0
		for i, kind := range kinds {
			var fd int
			if kind == "tcp" {
				fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
				require.NoError(t, err)
				require.NoError(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
			} else {
				fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
				require.NoError(t, err)
				_ = os.Remove(filepath.Join(dir, kind))
				require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, kind)}))
			}
			require.NoError(t, unix.Listen(fd, 1))
			to := 500 + i
			require.NoError(t, unix.Dup3(fd, to, 0))
			require.NoError(t, unix.Close(fd))
			first = 500
		}
		return first
	}
	given, err := takeOver(next("a", "d"), 2, "admin:data")
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "a"), given["admin"].Addr().String())
	require.Equal(t, filepath.Join(dir, "d"), given["data"].Addr().String())
	for _, l := range given {
		require.NoError(t, l.Close())
	}
	require.FileExists(t, filepath.Join(dir, "a"), "the service manager's socket was removed")

	given, err = takeOver(next("d"), 1, "rskvd.socket")
	require.NoError(t, err)
	require.NoError(t, given["data"].Close())
	_, err = takeOver(next("a", "d"), 2, "data")
	require.ErrorContains(t, err, "socket 2 of 2 has no name")
	_, err = takeOver(next("a", "d"), 2, "data:data")
	require.ErrorContains(t, err, `two sockets are named "data"`)
	_, err = takeOver(next("tcp"), 1, "data")
	require.ErrorContains(t, err, "not a Unix socket")
	_, err = takeOver(600, 1, "data")
	require.Error(t, err)
}
