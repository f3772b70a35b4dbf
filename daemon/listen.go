package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"rskv/ipc"
)

// The mode of a socket's directory that has to be made, and of the lock file.
const (
	socketDirMode = 0o750
	lockMode      = 0o600
)

// entry is one Unix socket of the daemon: made by itself, or handed over by the
// service manager, who then owns the path.
type entry struct {
	path  string
	lock  *socketLock       // nil: handed over
	given *net.UnixListener // nil: made by itself
}

// claim takes the right to serve on path, or on a listener that was given.
func claim(path string, given *net.UnixListener) (*entry, error) {
	if given != nil {
		return &entry{path: given.Addr().String(), given: given}, nil
	}
	lock, err := lockSocket(path)
	if err != nil {
		return nil, err
	}
	return &entry{path: path, lock: lock}, nil
}

// listen opens the socket with the given mode, for a group; one that was handed
// over has those that the service manager gave it.
func (e *entry) listen(ctx context.Context, mode fs.FileMode, group groupName) (*net.UnixListener, error) {
	if e.given == nil {
		return e.lock.listen(ctx, mode, group)
	}
	raw, err := e.given.SyscallConn()
	if err != nil {
		return nil, err
	}
	return e.given, raw.Control(refuseDescriptors)
}

// release gives the path up.
func (e *entry) release() {
	if e.given != nil {
		_ = e.given.Close()
	}
	if e.lock != nil {
		e.lock.release()
	}
}

// socketLock is the right to use one socket path: a lock on the file beside
// it. A socket is removed only by who holds its lock. The file itself stays,
// because removing it would let two daemons lock two files of one name.
type socketLock struct {
	path string // of the socket
	file *os.File
}

// lockSocket makes the socket's directory if it is missing and takes the lock.
func lockSocket(path string) (*socketLock, error) {
	if err := ipc.CheckSocketPath(path); err != nil {
		return nil, err
	}
	if err := socketDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	name := path + ".lock"
	file, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, lockMode)
	if err != nil {
		return nil, fmt.Errorf("open the socket's lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another daemon serves %s: it holds %s", path, name)
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return &socketLock{path, file}, nil
}

// socketDir makes a directory for sockets if it is missing. One that everybody
// may write to is refused, with the sticky bit or without: anybody could have put
// a socket there before us, for clients to talk to.
func socketDir(path string) error {
	if err := os.MkdirAll(path, socketDirMode); err != nil {
		return fmt.Errorf("make the socket's directory: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at the socket's directory: %w", err)
	}
	if info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("directory %s may be written by everybody (mode %#o): give the socket one of its own, below it or elsewhere: %w",
			path, info.Mode().Perm(), fs.ErrPermission)
	}
	return nil
}

// release gives the path up.
func (l *socketLock) release() { _ = l.file.Close() }

// listen opens the socket with the given mode, for a group, in place of a stale
// one.
func (l *socketLock) listen(ctx context.Context, mode fs.FileMode, group groupName) (*net.UnixListener, error) {
	if err := l.removeStale(); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: narrow}
	listener, err := config.Listen(ctx, "unix", l.path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if group.text != "" {
		if err := os.Lchown(l.path, -1, group.id); err != nil {
			_ = listener.Close()
			return nil, fmt.Errorf("give the socket to the group %s: %w", group.text, err)
		}
	}
	if err := os.Chmod(l.path, mode); err != nil {
		_ = listener.Close()
		return nil, fmt.Errorf("set the socket's mode: %w", err)
	}
	return listener.(*net.UnixListener), nil
}

// narrow gives a socket that is not yet bound the mode 0600, so that there is
// no moment in which more may connect than will be allowed. Not every system
// can; there the mode is what the umask leaves until listen changes it.
func narrow(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		_ = unix.Fchmod(int(fd), 0o600)
		refuseDescriptors(fd)
	})
}

// removeStale removes a socket nobody answers on, left by a daemon that was
// killed. The lock is held, so none of ours can have made it meanwhile.
func (l *socketLock) removeStale() error {
	info, err := os.Lstat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the socket's path: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket; it is left alone", l.path)
	}
	conn, err := net.Dial("unix", l.path)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("somebody else serves %s", l.path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("see whether anybody serves %s: %w", l.path, err)
	}
	if err := os.Remove(l.path); err != nil {
		return fmt.Errorf("remove the stale socket: %w", err)
	}
	return nil
}
