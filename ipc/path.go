package ipc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// DefaultSocket returns the path of the daemon's socket when none is given, the same for the daemon
// and its clients: RSKV_SOCKET; $RUNTIME_DIRECTORY/rskv.sock under systemd; /run/rskv/rskv.sock for
// root; $XDG_RUNTIME_DIR/rskv/rskv.sock; else a directory of this user's state.
func DefaultSocket() string { return machine().socket() }

// DefaultDir returns the directory of the daemon's store when none is given: $STATE_DIRECTORY under
// systemd; /var/lib/rskv for root; $XDG_STATE_HOME/rskv; else ~/.local/state/rskv.
func DefaultDir() string { return machine().dir() }

// CheckSocketPath reports whether path is short enough to be a socket's: the kernel would cut or
// refuse a longer one with an error that does not say so.
func CheckSocketPath(path string) error {
	if path == "" {
		return fmt.Errorf("socket path is empty")
	}
	if len(path) > MaxSocketPath {
		return fmt.Errorf("socket path has %d bytes, the system allows %d: %s", len(path), MaxSocketPath, path)
	}
	return nil
}

// places is what the default paths depend on.
type places struct {
	env  func(string) string
	uid  int
	temp string
}

func machine() places { return places{os.Getenv, os.Getuid(), os.TempDir()} }

const socketName = "rskv.sock"

func (p places) socket() string {
	if path := p.env("RSKV_SOCKET"); path != "" {
		return path
	}
	if dir := first(p.env("RUNTIME_DIRECTORY")); dir != "" {
		return filepath.Join(dir, socketName)
	}
	if p.uid == 0 {
		return filepath.Join("/run/rskv", socketName)
	}
	if dir := p.env("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "rskv", socketName)
	}
	return filepath.Join(p.userState(), socketName)
}

func (p places) dir() string {
	if dir := first(p.env("STATE_DIRECTORY")); dir != "" {
		return dir
	}
	if p.uid == 0 {
		return "/var/lib/rskv"
	}
	return p.userState()
}

// userState is this user's directory for what outlives a session. Without a home it is one in the
// temporary directory, named by the user so that users do not meet.
func (p places) userState() string {
	if dir := p.env("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "rskv")
	}
	if home := p.env("HOME"); filepath.IsAbs(home) {
		return filepath.Join(home, ".local", "state", "rskv")
	}
	return filepath.Join(p.temp, "rskv-"+strconv.Itoa(p.uid))
}

// first returns the first of systemd's directories, which it separates by colons.
func first(list string) string {
	dir, _, _ := strings.Cut(list, ":")
	return dir
}
