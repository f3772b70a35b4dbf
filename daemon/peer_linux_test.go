package daemon

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rskv/ipc"
)

// TestPeer_Roles: somebody who may open the socket and acts as administrator.
func TestPeer_Roles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	d := start(t, func(c *Config) { c.SocketMode = 0o666 })
	require.NoError(t, os.Chmod(filepath.Dir(d.cfg.Socket), 0o755))
	require.Equal(t, "admin", d.dial().hello(opt{})["role"])

	stranger := dialAs(t, 12345, d.cfg.Socket)
	require.Equal(t, "write", stranger.hello(opt{})["role"])
	stranger.want(true, "put", []byte("k"), []byte("v"))
	stranger.want([]byte("v"), "get", []byte("k"))
	stranger.refuse(ipc.CodeForbidden, "checkpoint")
	stranger.refuse(ipc.CodeForbidden, "config", opt{"set": opt{"log_level": "debug"}})
	require.Equal(t, "info", stranger.ask("config").result.(map[string]any)["log_level"])
}

// dialAs connects as another user. Only this thread changes its user, and only
// for the moment in which the kernel looks.
func dialAs(t *testing.T, uid int, path string) *wire {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	become := func(uid int) {
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0))
		require.Zero(t, errno)
	}
	become(uid)
	defer become(0)
	return dialPath(t, path)
}
