// Package peer runs the programs rskv is compared with, and the daemon itself,
// as processes of their own: each in a directory of its own, on a Unix socket
// or on a file, and gone when the run ends.
//
//	process.go  a server: started, ready when its socket answers, stopped by pid
//	child.go    a process that does not outlive this one
//	redis.go    redis-server, and redis-benchmark's own figures; memcached
//	rskvd.go    the daemon
//	fio.go      one job of fio, its JSON read
package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// readyMax is how long a server may take to listen, stopMax how long to end
	// after it was asked to.
	readyMax = 20 * time.Second
	stopMax  = 20 * time.Second
	// outputMax is how much of what a process says is kept for an error.
	outputMax = 4 << 10
)

// Server is a running server process.
type Server struct {
	Name   string
	Socket string
	Dir    string // the process's own, where it keeps what it stores
	cmd    *exec.Cmd
	out    tail
	gone   chan struct{} // closed when the process has ended
	err    error         // how it ended; set before gone is closed
}

// start runs a server and returns when it accepts connections on socket.
func start(ctx context.Context, name, socket, program string, args ...string) (*Server, error) {
	s := &Server{Name: name, Socket: socket, Dir: filepath.Dir(socket), gone: make(chan struct{})}
	s.cmd = exec.Command(program, args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := runChild(s.cmd, func(err error) {
		s.err = err
		close(s.gone)
	}); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	if err := s.waitReady(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyMax)
	defer cancel()
	for {
		c, err := net.Dial("unix", s.Socket)
		if err == nil {
			return c.Close()
		}
		select {
		case <-s.gone:
			return fmt.Errorf("%s ended at once (%v): %s", s.Name, s.err, s.out.last())
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen: %w: %s", s.Name, ctx.Err(), s.out.last())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Pid is the process's number.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Stop ends the process and waits for it: SIGTERM, and SIGKILL if that is not
// enough. It may be called again.
func (s *Server) Stop() error {
	select {
	case <-s.gone:
		return nil
	default:
	}
	// The process may end by itself just now; then there is nothing to do.
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.gone:
		return nil
	case <-time.After(stopMax):
	}
	_ = s.cmd.Process.Kill()
	<-s.gone
	return fmt.Errorf("%s had to be killed: %s", s.Name, s.out.last())
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	text []byte // guarded by mu
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	if over := len(t.text) - outputMax; over > 0 {
		t.text = append(t.text[:0], t.text[over:]...)
	}
	return len(b), nil
}

// last is the last line that says something.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(string(bytes.TrimSpace(t.text)), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// find looks a program up; the error says in one sentence that it is missing.
func find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", fmt.Errorf("%s is not installed", program)
	}
	return path, nil
}

// makeDir makes a directory of a process's own below dir.
func makeDir(dir, name string) (string, error) {
	path, err := os.MkdirTemp(dir, name+"-")
	if err != nil {
		return "", fmt.Errorf("directory of %s: %w", name, err)
	}
	return path, nil
}
