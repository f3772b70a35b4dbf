package daemon

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"rskv/engine"
)

const (
	// progressLogged is how often a long opening is told to people.
	progressLogged = 5 * time.Second
	// progressTold is how often it is told to the service manager.
	progressTold = time.Second
	// progressGrace is how long the service manager is asked to wait for the
	// next word. One step that is silent for longer would be a hang.
	progressGrace = 2 * time.Minute
	// tellMax is how long the service manager may take to take a word.
	tellMax = 2 * time.Second
)

// notifier tells the service manager what the daemon is doing, by the protocol
// of sd_notify(3): datagrams of NAME=value lines to the socket named by
// NOTIFY_SOCKET. The zero notifier says nothing.
type notifier struct{ conn *net.UnixConn }

// newNotifier connects to the socket at path; "" means that nobody listens. A
// leading @ stands for Linux's abstract namespace.
func newNotifier(path string) (notifier, error) {
	if path == "" {
		return notifier{}, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return notifier{}, fmt.Errorf("reach the service manager: %w", err)
	}
	return notifier{conn}, nil
}

// send tells one state with a sentence for people.
func (n notifier) send(state, status string) {
	if state == "" {
		n.tell("STATUS=" + status)
		return
	}
	n.tell(state+"=1", "STATUS="+status)
}

// tell sends lines as they are. The service manager may ignore them, be gone, or
// be too busy to take them for tellMax: none of it is this daemon's trouble.
func (n notifier) tell(lines ...string) {
	if n.conn != nil {
		_ = n.conn.SetWriteDeadline(time.Now().Add(tellMax))
		_, _ = n.conn.Write([]byte(strings.Join(lines, "\n") + "\n"))
	}
}

func (n notifier) close() {
	if n.conn != nil {
		_ = n.conn.Close()
	}
}

// opening returns what tells everybody how far the opening of the store is:
// operators at once, the service manager every second, the log every five.
func (s *server) opening(n notifier) func(engine.Progress) {
	var told, logged time.Duration
	var stage engine.Stage
	logged = time.Since(s.started)
	return func(p engine.Progress) {
		s.health.progress.Store(&p)
		now := time.Since(s.started)
		if p.Stage != stage || now-told >= progressTold {
			stage, told = p.Stage, now
			n.tell("STATUS="+describe(p), fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", progressGrace.Microseconds()))
		}
		if now-logged >= progressLogged {
			logged = now
			s.log.Info("opening the store", "step", string(p.Stage), "done", p.Done, "total", p.Total)
		}
	}
}

// lastCommit brings everything to stable storage before the store is closed. As
// long as that gets on it says how far it is, every so often, and asks the service
// manager for more time: much memory and a slow disk can take longer than
// TimeoutStopSec. What goes wrong the store says again when it is closed.
func (s *server) lastCommit(n notifier, every time.Duration) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = s.store.Sync(context.Background())
	}()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	first := s.store.Stats()
	for before := first.LogFlushed; ; {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		now := s.store.Stats()
		p := engine.Progress{Stage: stageFlush, Done: now.LogFlushed - first.LogFlushed, Total: max(now.LogTail-first.LogFlushed, 1)}
		if n.tell("STATUS=" + describe(p)); now.LogFlushed > before {
			n.tell(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", progressGrace.Microseconds()))
			before = now.LogFlushed
		}
	}
}

// stageFlush is what lastCommit does, in the words of those who open a store.
const stageFlush engine.Stage = "writing what is in memory"

// watch tells the service manager that the daemon is well as long as it answers
// a request of its own, until ctx ends. every is the time after which it will be
// taken for dead without a word.
func (s *server) watch(ctx context.Context, n notifier, every time.Duration) {
	ticker := time.NewTicker(every / 2)
	defer ticker.Stop()
	ill := false
	for {
		if err := s.probe(ctx); err == nil {
			n.tell("WATCHDOG=1")
			ill = false
		} else if ctx.Err() == nil && !ill {
			ill = true
			s.log.Error("the daemon does not answer itself; the service manager will restart it", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// reloading tells the service manager that settings are being loaded; READY
// ends it. The time lets it tell this reload from one before.
func (n notifier) reloading() {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return
	}
	n.tell("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000), "STATUS=loading settings")
}
