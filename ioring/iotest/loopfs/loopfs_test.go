//go:build linux

package loopfs

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestFS: a power cut that keeps what was not synced or loses what was, a freeze
// that holds nobody up or for ever.
func TestFS(t *testing.T) {
	for kind, size := range map[Kind]int64{Ext4: 32 << 20, XFS: XFSMin} {
		t.Run(string(kind), func(t *testing.T) {
			f, err := Mount(t.TempDir(), kind, size)
			if err != nil {
				t.Skipf("no %s on this machine: %v", kind, err)
			}
			defer func() { require.NoError(t, f.Unmount()) }()
			kept, lost := filepath.Join(f.Dir, "kept"), filepath.Join(f.Dir, "lost")
			synced(t, kept)
			file, err := os.Create(lost)
			require.NoError(t, err)
			_, err = file.WriteString("not synced")
			require.NoError(t, err)
			require.NoError(t, f.PowerCut())
			_, err = file.WriteString("more")
			require.Error(t, err, "it goes on without power")
			require.NoError(t, file.Close())
			require.NoError(t, f.Remount())
			text, err := os.ReadFile(kept)
			require.NoError(t, err)
			require.Equal(t, "synced", string(text))
			text, err = os.ReadFile(lost)
			require.True(t, os.IsNotExist(err) || len(text) == 0, "%q %v", text, err)

			require.NoError(t, f.Thaw(), "nothing is frozen")
			require.NoError(t, f.Freeze())
			written := make(chan error, 1)
			go func() { written <- os.WriteFile(filepath.Join(f.Dir, "late"), []byte("x"), 0o600) }()
			select {
			case err := <-written:
				t.Errorf("written to a frozen file system: %v", err)
			case <-time.After(50 * time.Millisecond):
			}
			require.NoError(t, f.Thaw())
			require.NoError(t, <-written)

			device, err := f.Device()
			require.NoError(t, err)
			require.Regexp(t, `^7:\d+$`, device)
		})
	}
}

// synced writes a file and makes it durable with its name.
func synced(t *testing.T, path string) {
	t.Helper()
	file, err := os.Create(path)
	require.NoError(t, err)
	_, err = file.WriteString("synced")
	require.NoError(t, err)
	require.NoError(t, file.Sync())
	require.NoError(t, file.Close())
	dir, err := unix.Open(filepath.Dir(path), unix.O_RDONLY, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Fsync(dir))
	require.NoError(t, unix.Close(dir))
}
