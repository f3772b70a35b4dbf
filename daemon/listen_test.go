package daemon

import (
	"context"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

// runFails runs a daemon that must not start, and returns why.
func runFails(t *testing.T, cfg Config) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := Run(ctx, cfg, Environment{Ready: cancel})
	require.Error(t, err)
	return err.Error()
}

// TestListen_SecondDaemon: two daemons on one socket, or on one directory.
func TestListen_SecondDaemon(t *testing.T) {
	d := start(t, nil)
	other := testConfig(t)
	other.Socket = d.cfg.Socket
	require.Contains(t, runFails(t, other), "another daemon serves "+d.cfg.Socket)
	other = testConfig(t)
	other.Dir = d.cfg.Dir
	require.Contains(t, runFails(t, other), "another daemon uses "+d.cfg.Dir)
	require.NoFileExists(t, other.Socket)
	d.dial().want("pong", "ping")
}

// TestListen_Foreign: a socket taken from a program that is not ours and still
// answers.
func TestListen_Foreign(t *testing.T) {
	cfg := testConfig(t)
	foreign, err := net.Listen("unix", cfg.Socket)
	require.NoError(t, err)
	defer foreign.Close()
	require.Contains(t, runFails(t, cfg), "somebody else serves "+cfg.Socket)
	_, err = net.Dial("unix", cfg.Socket)
	require.NoError(t, err)
}

// TestListen_Stale: a socket left by a killed daemon that keeps the next from
// starting.
func TestListen_Stale(t *testing.T) {
	cfg := testConfig(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: cfg.Socket, Net: "unix"})
	require.NoError(t, err)
	l.SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	require.FileExists(t, cfg.Socket)
	d := startWith(t, cfg)
	d.dial().want("pong", "ping")
	d.stop()
	require.NoFileExists(t, cfg.Socket, "the socket stays behind")
}

// TestListen_NotASocket: a file, directory or link at the socket's path that is
// removed or written through.
func TestListen_NotASocket(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"file":      func(p string) error { return os.WriteFile(p, []byte("precious"), 0o600) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"link":      func(p string) error { return os.Symlink("elsewhere", p) },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t)
			require.NoError(t, make(cfg.Socket))
			before, err := os.Lstat(cfg.Socket)
			require.NoError(t, err)
			require.Contains(t, runFails(t, cfg), "is not a socket")
			after, err := os.Lstat(cfg.Socket)
			require.NoError(t, err)
			require.True(t, os.SameFile(before, after))
			require.NoFileExists(t, filepath.Join(filepath.Dir(cfg.Socket), "elsewhere"))
		})
	}
}

// TestListen_LockIsALink: a lock file that is a link, through which the daemon
// would make a file somewhere else.
func TestListen_LockIsALink(t *testing.T) {
	cfg := testConfig(t)
	target := filepath.Join(filepath.Dir(cfg.Socket), "target")
	require.NoError(t, os.Symlink(target, cfg.Socket+".lock"))
	require.Contains(t, runFails(t, cfg), "open the socket's lock")
	require.NoFileExists(t, target)
}

// TestListen_Path: a path the system would cut or refuse with an error that
// says nothing; a directory that is missing.
func TestListen_Path(t *testing.T) {
	cfg := testConfig(t)
	cfg.Socket = filepath.Join(filepath.Dir(cfg.Socket), strings.Repeat("x", ipc.MaxSocketPath))
	require.Contains(t, runFails(t, cfg), "a socket's path can have 107")

	cfg = testConfig(t)
	cfg.Socket = filepath.Join(filepath.Dir(cfg.Socket), "new", "s")
	startWith(t, cfg).dial().want("pong", "ping")
	info, err := os.Stat(filepath.Dir(cfg.Socket))
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&^socketDirMode)
}

// TestListen_Mode: more may connect than the setting says.
func TestListen_Mode(t *testing.T) {
	for _, mode := range []fs.FileMode{0o600, 0o660, 0o666} {
		d := start(t, func(c *Config) { c.SocketMode = mode })
		info, err := os.Stat(d.cfg.Socket)
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode().Perm())
	}
}

// TestNotify: the service manager is not told, or told too early.
func TestNotify(t *testing.T) {
	cfg := testConfig(t)
	path := filepath.Join(filepath.Dir(cfg.Socket), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	require.NoError(t, err)
	defer manager.Close()
	next := func() string {
		buf := make([]byte, 1<<12)
		for {
			require.NoError(t, manager.SetReadDeadline(time.Now().Add(patience)))
			n, err := manager.Read(buf)
			require.NoError(t, err)
			text := string(buf[:n])
			// How far a slow disk is with the last commit is told too.
			if !strings.HasPrefix(text, "STATUS="+string(stageFlush)) && !strings.HasPrefix(text, "EXTEND_TIMEOUT_USEC=") {
				return text
			}
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, cfg, Environment{Manager: Manager{NotifySocket: path}}) }()
	require.Equal(t, "STATUS=opening the store\n", next())
	require.Equal(t, "READY=1\nSTATUS=serving "+cfg.Socket+"\n", next())
	dialPath(t, cfg.Socket).want("pong", "ping")
	cancel()
	require.Equal(t, "STOPPING=1\nSTATUS=finishing requests\n", next())
	require.Equal(t, "STATUS=closing the store\n", next())
	require.NoError(t, <-ended)
	require.ErrorContains(t, Run(context.Background(), cfg, Environment{Manager: Manager{NotifySocket: path + "none"}}), "reach the service manager")
}
