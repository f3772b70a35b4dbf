package daemon

import (
	"log/slog"
	"sync"
	"time"

	"rskv/engine"
	"rskv/ipc"
)

// writable is whether the store takes writes, as health, stats and the log tell
// it. Whoever asks looks at the store; a change is noticed, and logged, by the
// first who does, and that is within a tick of the pulse, see pulse.go.
type writable struct {
	store *engine.Store // immutable once it serves
	log   *slog.Logger  // immutable
	mu    struct {
		sync.Mutex
		is    state
		why   string    // "" for stateOK
		since time.Time // zero for stateOK
	}
}

// state is what a store may be in. The names are the wire's.
type state string

const (
	stateOK       state = "ok"
	stateReadOnly state = "read only"
	stateFull     state = "disk full"
)

// look returns the state of the moment.
func (w *writable) look() (is state, why string, since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := w.mu.is
	if is, why = w.ask(); is != was {
		w.mu.is, w.mu.why, w.mu.since = is, why, time.Now()
		w.tell(was)
		if is == stateOK {
			w.mu.since = time.Time{}
		}
	}
	return w.mu.is, w.mu.why, w.mu.since
}

func (w *writable) ask() (state, string) {
	if err := w.store.Err(); err != nil {
		return stateReadOnly, err.Error()
	}
	if err := w.store.Full(); err != nil {
		return stateFull, err.Error()
	}
	return stateOK, ""
}

// tell logs a change; called with mu held.
func (w *writable) tell(was state) {
	switch {
	case w.mu.is == stateReadOnly:
		w.log.Error("the store takes no writes any more", "state", string(w.mu.is), "error", w.mu.why)
	case w.mu.is == stateFull:
		w.log.Error("the store takes no writes until there is room", "state", string(w.mu.is), "error", w.mu.why)
	case was != "":
		w.log.Info("the store takes writes again", "after", string(was))
	}
}

// healthOf carries out the method "health".
func (c *conn) healthOf(k call) {
	if !k.answered {
		return
	}
	is, why, since := c.server.writable.look()
	dst := ipc.AppendMapHeader(ipc.AppendResultHeader(c.output.ready, k.id), 3)
	dst = ipc.AppendStr(ipc.AppendStr(dst, "state"), string(is))
	dst = ipc.AppendStr(ipc.AppendStr(dst, "error"), why)
	c.output.ready = ipc.AppendInt(ipc.AppendStr(dst, "since"), unixMilli(since))
}
