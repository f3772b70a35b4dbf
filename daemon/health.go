package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"rskv/engine"
	"rskv/ipc"
)

// phase is where a daemon is in its life.
//
//	opening   the store is being opened: what a crash left is replayed
//	serving   clients are served
//	stopping  no connection is accepted; what was begun is finished
//	closed    the store is not there any more
type phase int32

const (
	opening phase = iota
	serving
	stopping
	closed
)

var phaseNames = [...]string{"opening", "serving", "stopping", "closed"}

func (p phase) String() string { return phaseNames[p] }

// health is what the daemon knows about itself, for its operators.
type health struct {
	phase    atomic.Int32 // a phase; written by Run
	progress atomic.Pointer[engine.Progress]
	// degraded returns why the store takes no writes; set before serving.
	degraded func() error
	// using is held for reading by who looks at the store, so that it is not
	// closed meanwhile.
	using sync.RWMutex
}

func (h *health) is() phase { return phase(h.phase.Load()) }

// enter goes on to the next phase. Closed is entered before the store is closed,
// and when nobody looks at it any more.
func (h *health) enter(p phase) {
	h.using.Lock()
	h.phase.Store(int32(p))
	h.using.Unlock()
}

// look calls f, which may use the store, if it is there.
func (h *health) look(f func()) {
	h.using.RLock()
	defer h.using.RUnlock()
	if p := h.is(); p == serving || p == stopping {
		f()
	}
}

// ready returns nil if clients are served in full.
func (h *health) ready() error {
	switch h.is() {
	case opening:
		if p := h.progress.Load(); p != nil {
			return errors.New(describe(*p))
		}
		return errors.New("opening the store")
	case stopping, closed:
		return errors.New("stopping")
	}
	var err error
	h.look(func() { err = h.degraded() })
	return err
}

// describe says a step of opening in a sentence.
func describe(p engine.Progress) string {
	const mib = 1 << 20
	if p.Total <= 0 {
		return string(p.Stage)
	}
	return fmt.Sprintf("%s: %d of %d MiB, %d %%", p.Stage, p.Done/mib, p.Total/mib, 100*p.Done/p.Total)
}

// probeTimeout is how long a daemon may take to answer itself before it is
// taken for dead. A disk that hangs for longer is no reason: a probe reads none.
const probeTimeout = 10 * time.Second

// probe asks the daemon for a key nobody has, over its own socket, as any client
// would: accept, read, engine and write have to work for an answer. A daemon
// that is opening or stopping is alive without being asked.
func (s *server) probe(ctx context.Context) error {
	if s.health.is() != serving {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", s.address)
	if err != nil {
		if s.health.is() != serving {
			return nil
		}
		return fmt.Errorf("connect to %s: %w", s.address, err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	return s.exchange(conn)
}

// exchange sends one request and takes its answer. Busy is one too, and so is
// Forbidden where roles leave the daemon's own user out.
func (s *server) exchange(conn net.Conn) error {
	var key [16]byte
	_, _ = rand.Read(key[:])
	// A daemon that is full says so and closes, maybe before it is asked: what it
	// said can be read all the same.
	if _, err := conn.Write(ipc.AppendGet(nil, 1, key[:])); err != nil && !errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("ask %s: %w", s.address, err)
	}
	split := ipc.NewSplitter(ipc.MaxAnswer)
	var text [1 << 10]byte
	for n := 0; n < len(text); {
		more, err := conn.Read(text[n:])
		if n += more; err != nil {
			if s.health.is() != serving {
				return nil
			}
			return fmt.Errorf("%s does not answer: %w", s.address, err)
		}
		if size, refused := split.Next(text[:n]); refused != nil {
			return refused
		} else if size > 0 {
			return answerOf(text[:size])
		}
	}
	return fmt.Errorf("%s answers without end", s.address)
}

func answerOf(message []byte) error {
	var r ipc.Response
	if err := ipc.ParseResponse(message, &r); err != nil {
		return err
	}
	err := r.Err()
	for _, alive := range []error{ipc.CodeBusy, ipc.CodeForbidden, ipc.CodeShuttingDown} {
		if errors.Is(err, alive) {
			return nil
		}
	}
	return err
}
