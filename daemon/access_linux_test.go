package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rskv/ipc"
)

// reachable is a Config whose sockets other users of this machine can reach.
func reachable(t *testing.T) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	cfg := testConfig(t)
	require.NoError(t, os.Chmod(filepath.Dir(cfg.Socket), 0o755))
	cfg.SocketMode = 0o666
	return cfg
}

// dialAs connects as another user, with groups of its own. Only this thread
// changes who it is, and only for the moment in which the kernel looks.
func dialAs(t *testing.T, uid int, path string, groups ...uint32) *wire {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	become := func(uid, gid int, groups []uint32) {
		g := append(groups, 0) // never empty, so that it has an address
		_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&g[0])), 0)
		require.Zero(t, errno)
		_, _, errno = unix.RawSyscall(unix.SYS_SETRESGID, ^uintptr(0), uintptr(gid), ^uintptr(0))
		require.Zero(t, errno)
		_, _, errno = unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0))
		require.Zero(t, errno)
	}
	before, err := unix.Getgroups()
	require.NoError(t, err)
	own := make([]uint32, len(before))
	for i, g := range before {
		own[i] = uint32(g)
	}
	become(uid, uid, groups)
	defer func() {
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0))
		require.Zero(t, errno)
		become(0, 0, own)
	}()
	return dialPath(t, path)
}

// TestAccess_Roles: somebody who may open a socket and does more there than its
// role allows, or what only another socket does.
func TestAccess_Roles(t *testing.T) {
	cfg := reachable(t)
	readers := filepath.Join(filepath.Dir(cfg.Socket), "readers")
	require.NoError(t, doorsValue{&cfg.MoreSockets}.Set(readers+" mode=0666 roles=*=read,root=read"))
	cfg.Roles = rolesText(t, "1001=read,1002=none,1003=admin,@2001=write,@2002=read,*=none")
	d := startWith(t, cfg)
	require.Equal(t, "admin", d.dial().hello(opt{})["role"], "the daemon's own user")

	reader := dialAs(t, 1001, cfg.Socket, 2001)
	require.Equal(t, "read", reader.hello(opt{})["role"], "a group counts over the user itself")
	reader.want(nil, "get", []byte("k"))
	for _, m := range ipc.Methods() {
		if m.Class() > ipc.ClassRead {
			reader.refuse(ipc.CodeForbidden, m.String(), methodParams(m)...)
		}
	}
	reader.refuse(ipc.CodeForbidden, "config", opt{"set": opt{"log_level": "debug"}})
	require.Equal(t, "info", reader.ask("config").result.(map[string]any)["log_level"])

	writer := dialAs(t, 1500, cfg.Socket, 5, 2002, 2001)
	require.Equal(t, "write", writer.hello(opt{})["role"], "supplementary groups are not seen")
	writer.want(true, "put", []byte("k"), []byte("v"))
	writer.refuse(ipc.CodeForbidden, "checkpoint")
	reader.want([]byte("v"), "get", []byte("k"))
	dialAs(t, 1003, cfg.Socket).want(int64(1), "len")
	require.Empty(t, dialAs(t, 1003, cfg.Socket).ask("checkpoint").code)

	for _, uid := range []int{1002, 1999} {
		w := dialAs(t, uid, cfg.Socket)
		a := w.must()
		require.Equal(t, string(ipc.CodeForbidden), a.code, "user %d", uid)
		w.closed()
	}
	// At the other socket root is a reader, and everybody may come.
	w := dialAs(t, 1999, readers)
	require.Equal(t, "read", w.hello(opt{})["role"])
	dialPath(t, readers).refuse(ipc.CodeForbidden, "put", []byte("k"), []byte("w"))
	w.want([]byte("v"), "get", []byte("k"))

	// Roles can be changed; who is connected keeps his.
	require.Empty(t, d.dial().ask("config", opt{"set": opt{"roles": "1002=read"}}).code)
	require.Equal(t, "read", dialAs(t, 1002, cfg.Socket).hello(opt{})["role"])
	require.Equal(t, string(ipc.CodeForbidden), dialAs(t, 1001, cfg.Socket).must().code)
	reader.want([]byte("v"), "get", []byte("k"))
}

// TestAccess_Default: somebody who may open the socket and acts as administrator.
func TestAccess_Default(t *testing.T) {
	d := startWith(t, reachable(t))
	stranger := dialAs(t, 12345, d.cfg.Socket)
	require.Equal(t, "write", stranger.hello(opt{})["role"])
	stranger.want(true, "put", []byte("k"), []byte("v"))
	stranger.want([]byte("v"), "get", []byte("k"))
	stranger.refuse(ipc.CodeForbidden, "checkpoint")
	stranger.refuse(ipc.CodeForbidden, "config", opt{"set": opt{"log_level": "debug"}})
	require.Equal(t, "info", stranger.ask("config").result.(map[string]any)["log_level"])
}

// methodParams are parameters with which a method is well-formed.
func methodParams(m ipc.Method) []any {
	k, v := []byte("k"), []byte("v")
	switch m {
	case ipc.MethodPut, ipc.MethodAppend:
		return []any{k, v}
	case ipc.MethodDel:
		return []any{k}
	case ipc.MethodCas:
		return []any{k, nil, v}
	case ipc.MethodAdd, ipc.MethodExpire:
		return []any{k, 1}
	case ipc.MethodMPut:
		return []any{[]any{[]any{k, v}}}
	case ipc.MethodMDel:
		return []any{[]any{k}}
	case ipc.MethodBackup:
		return []any{"open"}
	case ipc.MethodScrub, ipc.MethodMonitor:
		return []any{"start"}
	case ipc.MethodSlowlog, ipc.MethodTasks:
		return []any{"get"}
	}
	return nil
}

// TestAccess_Connections: a user who takes the place of all others.
func TestAccess_Connections(t *testing.T) {
	cfg := reachable(t)
	cfg.MaxConnectionsUser = 2
	d := startWith(t, cfg)
	first, second := dialAs(t, 1001, cfg.Socket), dialAs(t, 1001, cfg.Socket)
	first.want("pong", "ping")
	second.want("pong", "ping")
	third := dialAs(t, 1001, cfg.Socket)
	a := third.must()
	require.Equal(t, string(ipc.CodeBusy), a.code)
	require.Contains(t, a.reason, "max_connections_user")
	third.closed()
	dialAs(t, 1002, cfg.Socket).want("pong", "ping")
	for range 4 { // administrators are not counted
		d.dial().want("pong", "ping")
	}
	_ = first.conn.Close()
	require.Eventually(t, func() bool {
		w := dialAs(t, 1001, cfg.Socket)
		if _, err := w.conn.Write(request(1, "ping")); err != nil {
			return false
		}
		a, err := w.receive()
		return err == nil && a.code == ""
	}, patience, 10*time.Millisecond)
	require.Contains(t, d.log.String(), `msg="connection denied" audit=denied uid=1001`)
}

// TestAccess_Rate: a user who does more than its share in many connections, or a
// refused write that takes no number of its session.
func TestAccess_Rate(t *testing.T) {
	cfg := reachable(t)
	cfg.MaxRateUser = 10
	d := startWith(t, cfg)
	all := []*wire{dialAs(t, 1001, cfg.Socket), dialAs(t, 1001, cfg.Socket)}
	begin, done, busy := time.Now(), 0, 0
	for i := 0; busy < 20; i++ {
		switch a := all[i%2].ask("put", []byte("k"), fmt.Appendf(nil, "%d", i)); a.code {
		case "":
			done++
		case string(ipc.CodeBusy):
			busy++
		default:
			t.Fatal(a)
		}
		dialPath(t, cfg.Socket).want("pong", "ping") // others do not feel it
	}
	require.LessOrEqual(t, done, 10+int(time.Since(begin).Seconds()*10)+1)
	require.GreaterOrEqual(t, done, 10)
	other := dialAs(t, 1002, cfg.Socket)
	keys := make([][]byte, 500)
	for i := range keys {
		keys[i] = []byte("k")
	}
	require.Empty(t, other.ask("mget", keys).code)
	other.refuse(ipc.CodeBusy, "get", []byte("k")) // 500 operations have to be paid for
	require.GreaterOrEqual(t, d.dial().ask("stats").result.(map[string]any)["daemon_requests_limited"], int64(21))
}

// TestAccess_Descriptors: a descriptor that a client sends stays open in the
// daemon, which could be filled up with them.
func TestAccess_Descriptors(t *testing.T) {
	d := start(t, nil)
	w := d.dial()
	w.want("pong", "ping")
	if !passDescriptor(t, w) {
		t.Log("the kernel refuses them")
	}
	w.want("pong", "ping")

	// Where the kernel does not refuse them, before Linux 6.16: on a pair of
	// sockets nobody has told it to.
	cfg := testConfig(t)
	s := newServer(cfg, nil)
	require.NoError(t, s.openStore(cfg, nil, nil))
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	ends := make([]*net.UnixConn, 2)
	for i, fd := range pair {
		f := os.NewFile(uintptr(fd), "pair")
		end, err := net.FileConn(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		ends[i] = end.(*net.UnixConn)
	}
	s.admit(ends[0], &rolesStandard)
	w = &wire{t: t, conn: ends[1], read: ipc.NewSplitter(1 << 30)}
	require.True(t, passDescriptor(t, w), "not the kernel but the daemon has to close it")
	w.want("pong", "ping")
	// A read(2) stops at descriptors: what is behind them has to be asked for. What
	// comes before is not answered: a client that takes an answer wakes the reader.
	c := s.connections()[0]
	for id := range uint32(20) {
		c.mu.Lock() // the reader gets to the first and no further, or is not through with the one before
		before := c.lane.bytesIn.Load()
		w.send(notification("put", []byte("k"), []byte("v")))
		for begin := time.Now(); c.lane.bytesIn.Load() == before && time.Since(begin) < 20*time.Millisecond; {
			time.Sleep(time.Millisecond)
		}
		_, _, err := w.conn.WriteMsgUnix(notification("put", []byte("k"), []byte("w")), unix.UnixRights(0), nil)
		require.NoError(t, err)
		w.send(request(id, "get", []byte("k")))
		time.Sleep(time.Millisecond) // the poller has told of all of it
		c.mu.Unlock()
		require.Equal(t, answer{id: id, result: []byte("w")}, w.must())
	}
	require.NoError(t, ends[1].Close())
	require.NoError(t, s.drain())
	require.NoError(t, s.closeStore())
}

// passDescriptor sends the end of a pipe with a request, and checks that nobody
// has it afterwards. It reports whether it could be sent at all.
func passDescriptor(t *testing.T, w *wire) bool {
	t.Helper()
	reader, writer, err := os.Pipe()
	require.NoError(t, err)
	defer reader.Close()
	_, _, err = w.conn.WriteMsgUnix(request(7, "ping"), unix.UnixRights(int(writer.Fd()), int(writer.Fd())), nil)
	require.NoError(t, writer.Close())
	sent := !errors.Is(err, unix.EPERM)
	if sent {
		require.NoError(t, err)
		require.Equal(t, answer{id: 7, result: "pong"}, w.must())
	}
	require.NoError(t, reader.SetReadDeadline(time.Now().Add(patience)))
	_, err = reader.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF, "somebody still has the other end")
	return sent
}

// TestAccess_Directories: a directory in which a stranger can put a socket, or
// the store, before the daemon does.
func TestAccess_Directories(t *testing.T) {
	for _, mode := range []os.FileMode{0o777, 0o777 | os.ModeSticky, 0o772} {
		cfg := testConfig(t)
		open := filepath.Join(filepath.Dir(cfg.Socket), "open")
		require.NoError(t, os.Mkdir(open, 0o700))
		require.NoError(t, os.Chmod(open, mode))
		for name, change := range map[string]func(*Config){
			"socket":       func(c *Config) { c.Socket = filepath.Join(open, "s") },
			"admin_socket": func(c *Config) { c.AdminSocket = filepath.Join(open, "a") },
			"more_sockets": func(c *Config) {
				c.MoreSockets = []door{{path: filepath.Join(open, "m"), mode: 0o600, roles: rolesStandard}}
			},
			"dir": func(c *Config) { c.Dir = open },
		} {
			bad := cfg
			change(&bad)
			require.Contains(t, runFails(t, bad), "may be written by everybody", "%s in a directory of mode %v", name, mode)
			names, err := os.ReadDir(open)
			require.NoError(t, err)
			require.Empty(t, names, "something was left in it")
		}
	}
}

// TestAccess_Files: a file of the store or a lock that others may read, or that
// is passed on to other programs.
func TestAccess_Files(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	d := start(t, nil)
	w := d.dial()
	w.want(true, "put", []byte("k"), make([]byte, 1<<20), opt{"sync": true})
	require.Empty(t, w.ask("checkpoint").code)
	seen := 0
	for _, dir := range []string{d.cfg.Dir, filepath.Dir(d.cfg.Socket)} {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		for _, e := range entries {
			info, err := e.Info()
			require.NoError(t, err)
			want := os.FileMode(0o600)
			switch {
			case info.Name() == filepath.Base(d.cfg.Socket):
				want = d.cfg.SocketMode
			case info.IsDir():
				want = 0o700
			}
			require.Equal(t, want, info.Mode().Perm(), info.Name())
			seen++
		}
	}
	require.Greater(t, seen, 4)
	fds, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, e := range fds {
		link, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || !strings.HasPrefix(link, filepath.Dir(d.cfg.Socket)) {
			continue
		}
		text, err := os.ReadFile("/proc/self/fdinfo/" + e.Name())
		require.NoError(t, err)
		flags := 0
		for line := range bytes.Lines(text) {
			_, _ = fmt.Sscanf(string(line), "flags: %o", &flags)
		}
		require.NotZero(t, flags&unix.O_CLOEXEC, "%s is passed on", link)
	}
}
