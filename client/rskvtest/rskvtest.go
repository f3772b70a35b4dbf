// Package rskvtest gives tests a daemon of their own, in this process and in memory:
//
//	func TestCart(t *testing.T) {
//		c := rskvtest.New(t) // a *client.Client of an empty store, gone when the test ends
//		...
//	}
//
// It is the real daemon on a real socket, with a disk that is memory: nothing is mocked, and nothing
// has to be installed. NewServer is the same with a handle on what goes wrong in production:
//
//	s := rskvtest.NewServer(t)
//	c := s.Client(client.WithSession())
//	s.Disconnect()    // every connection is lost, as it may be at any time
//	s.Restart()       // the daemon stops in order, and starts again
//	s.Crash()         // the power fails: what was not durable is gone
//	s.FillDisk()      // writes fail with DiskFull until FreeDisk
//	s.BreakDisk()     // an I/O error: the store is read-only until Restart
//
// Programs in other languages, or processes that the test starts, connect to Socket, for example by
// the variable RSKV_SOCKET.
//
// The server stands between clients and daemon, so that connections can be cut at any byte:
//
//	client ──> socket ──relay──> daemon ──> engine ──> iotest.Mem
//
// The package imports the daemon, so only tests should import it; package client does not.
package rskvtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"rskv/client"
	"rskv/daemon"
	"rskv/ioring/iotest"
)

// patience is how long the daemon may take to start or stop before that is an error: far more than
// any machine needs.
const patience = time.Minute

// Server is a daemon in this process, with a disk in memory. Its methods may be called from any
// goroutine.
type Server struct {
	config daemon.Config // immutable
	dir    string        // of the sockets
	front  *relay
	log    journal

	mu struct {
		sync.Mutex // one start or stop at a time
		disk       *iotest.Mem
		stop       context.CancelFunc
		ended      chan error // receives what Run returned
		broken     bool       // BreakDisk: that it cannot be closed well is no error
		closed     bool
		crashes    uint64 // each draws other fates
	}
}

// Option is a setting of the daemon.
type Option struct{ name, value string }

// Setting sets a setting of the daemon by its name and in the form of its file, for example
// Setting("max_value", "1MiB"). What there is lists `rskvd config defaults`. Settings that say where
// things are (dir, socket, admin_socket, admin_listen, config) are the Server's own.
func Setting(name, value string) Option { return Option{name, value} }

// New starts a daemon with an empty store and returns a client of it. Both end with the test.
func New(t testing.TB, opts ...client.Option) *client.Client {
	t.Helper()
	return NewServer(t).Client(t, opts...)
}

// NewServer starts a daemon with an empty store that ends with the test. If the test fails, it logs
// what the daemon said.
func NewServer(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s, err := Start(opts...)
	if err != nil {
		t.Fatalf("rskvtest: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("rskvtest: %v", err)
		}
		if t.Failed() {
			t.Logf("the daemon said:\n%s", s.Log())
		}
	})
	return s
}

// Start is NewServer where there is no test, as in TestMain. The caller must Close the Server.
func Start(opts ...Option) (*Server, error) {
	dir, err := os.MkdirTemp("", "rskvtest") // short enough for a socket's path, as t.TempDir may not be
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir}
	if s.config, err = s.settings(opts); err == nil {
		s.front, err = newRelay(filepath.Join(dir, "rskv.sock"), s.config.Socket)
	}
	if err == nil {
		s.mu.disk = s.newDisk()
		err = s.startLocked()
	}
	if err != nil {
		s.front.close()
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return s, nil
}

// own are the settings that Setting cannot change.
var own = []string{"config", "dir", "socket", "admin_socket", "admin_listen", "recover_version"}

// settings makes the daemon's settings: small, quick to become durable, and what opts say.
func (s *Server) settings(opts []Option) (daemon.Config, error) {
	set := map[string]string{"memory": "32MiB", "page_size": "256KiB", "segment_size": "4MiB", "commit_interval": "50ms"}
	for _, o := range opts {
		if slices.Contains(own, o.name) {
			return daemon.Config{}, fmt.Errorf("setting %s is the server's own", o.name)
		}
		set[o.name] = o.value
	}
	set["dir"], set["socket"], set["admin_socket"] = filepath.Join(s.dir, "store"), filepath.Join(s.dir, "daemon.sock"), "off"
	var environ []string
	for name, value := range set {
		environ = append(environ, "RSKV_"+strings.ToUpper(name)+"="+value)
	}
	return daemon.Load(nil, environ)
}

func (s *Server) newDisk() *iotest.Mem {
	return iotest.NewMem(iotest.MemOptions{SegmentSize: s.config.SegmentSize})
}

// startLocked starts the daemon on the disk there is, and lets clients in.
func (s *Server) startLocked() error {
	ctx, stop := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	disk := s.mu.disk
	go func() {
		ended <- daemon.Run(ctx, s.config, daemon.Environment{Log: &s.log, Device: disk, Ready: func() { close(ready) }})
	}()
	select {
	case <-ready:
		s.mu.stop, s.mu.ended = stop, ended
		s.front.open()
		return nil
	case err := <-ended:
		stop()
		return fmt.Errorf("start the daemon: %w", err)
	case <-time.After(patience):
		stop()
		return errors.New("the daemon did not start; it said:\n" + s.Log())
	}
}

// stopLocked ends the daemon as SIGTERM does. Its error counts unless the test has broken the disk.
func (s *Server) stopLocked() error {
	if s.mu.stop == nil {
		return nil // it did not come up again
	}
	s.mu.stop()
	s.mu.stop = nil
	select {
	case err := <-s.mu.ended:
		if s.mu.broken {
			return nil
		}
		return err
	case <-time.After(patience):
		return errors.New("the daemon did not stop; it said:\n" + s.Log())
	}
}

// Close ends the daemon and removes its sockets; calling it again does nothing. Clients should be
// closed before it: they try to connect again.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil
	}
	s.mu.closed = true
	err := s.stopLocked()
	s.front.close()
	return errors.Join(err, os.RemoveAll(s.dir))
}

// Socket is the path of the socket, the same for the life of the Server.
func (s *Server) Socket() string { return s.front.path }

// Client connects to the daemon. The client is closed when the test ends.
func (s *Server) Client(t testing.TB, opts ...client.Option) *client.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := client.Dial(ctx, s.Socket(), opts...)
	if err != nil {
		t.Fatalf("rskvtest: %v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Log is what the daemon has logged since the Server was started.
func (s *Server) Log() string { return s.log.String() }

// journal collects log lines.
type journal struct {
	mu    sync.Mutex
	lines bytes.Buffer // guarded by mu
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.String()
}
