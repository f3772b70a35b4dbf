package daemon

import (
	"container/list"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"rskv/engine"
	"rskv/ipc"
)

// refusedMax is how many refused writes a session remembers. A client has
// fewer answers outstanding than that, or is in trouble that a longer list
// would not mend.
const refusedMax = 4096

// clientSession is what a client can resume after it lost its connection. The
// count of its writes is the engine's, and survives the daemon; which of them
// were refused is known to this process only.
//
// While a connection has it, that connection owns it; the table gives it from
// one to the next only after the first is done.
type clientSession struct {
	id [ipc.SessionSize]byte // immutable

	refused []ipc.Refused // the last refusedMax writes answered with an error
	since   uint64        // refused has all of those with a higher number

	told atomic.Uint64 // highest durable number the client was told

	// Written under sessionTable.mu, and only while no connection has it.
	ledger *engine.Ledger
	// guarded by sessionTable.mu
	conn *conn         // that has it; nil: none
	idle *list.Element // its place in sessionTable.mu.idle while none has it
}

// refuse notes a write that was answered with an error.
func (s *clientSession) refuse(number uint64, code ipc.Code) {
	if len(s.refused) == refusedMax {
		s.since = max(s.since, s.refused[0].Number)
		s.refused = slices.Delete(s.refused, 0, 1)
	}
	s.refused = append(s.refused, ipc.Refused{Number: number, Code: code})
}

// refusedAfter lists the refused writes with a number above seen, in order.
func (s *clientSession) refusedAfter(seen uint64) []ipc.Refused {
	after := []ipc.Refused{}
	for _, r := range s.refused {
		if r.Number > seen {
			after = append(after, r)
		}
	}
	slices.SortFunc(after, func(a, b ipc.Refused) int { return int(int64(a.Number - b.Number)) })
	return after
}

// sessionTable is the sessions that have been seen since the daemon started.
// Which sessions there are at all is the engine's to say.
type sessionTable struct {
	store *engine.Store
	most  int // how many the engine keeps
	mu    struct {
		sync.Mutex
		all  map[[ipc.SessionSize]byte]*clientSession
		idle *list.List // of *clientSession, the one unused for longest first
	}
}

func newSessionTable(store *engine.Store, most int) *sessionTable {
	t := &sessionTable{store: store, most: most}
	t.mu.all = map[[ipc.SessionSize]byte]*clientSession{}
	t.mu.idle = list.New()
	return t
}

var (
	errSessionUnknown = &ipc.Error{Code: ipc.CodeSessionUnknown, Message: "the session is not known here (any more)"}
	errSessionsFull   = &ipc.Error{Code: ipc.CodeBusy, Message: "too many sessions (max_sessions), all of them connected"}
	errStopping       = &ipc.Error{Code: ipc.CodeShuttingDown, Message: "the connection is closing"}
)

// attach gives c the session that h names, or a new one. A session that
// another connection has is taken from it: that one is closed, and attach
// returns when all that it had begun is finished.
func (t *sessionTable) attach(c *conn, h *ipc.HelloCall) (*clientSession, *ipc.Error) {
	if !h.HasSession {
		return t.start(c)
	}
	for {
		s, holder := t.claim(c, h.Session)
		switch {
		case s == nil:
			return nil, errSessionUnknown
		case holder == nil:
			return s, nil
		}
		holder.kill()
		select {
		case <-holder.done:
		case <-c.halt:
			return nil, errStopping
		}
	}
}

// claim gives c the session id if nobody has it, and else tells who does. nil:
// there is no such session.
func (t *sessionTable) claim(c *conn, id [ipc.SessionSize]byte) (*clientSession, *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.mu.all[id]
	if s != nil && s.conn != nil {
		return s, s.conn
	}
	ledger, err := t.store.FindLedger(engine.LedgerID(id))
	if s != nil {
		t.mu.idle.Remove(s.idle)
		s.idle = nil
	}
	if err != nil {
		delete(t.mu.all, id)
		return nil, nil
	}
	if s == nil {
		s = &clientSession{id: id, since: ledger.Applied()}
		t.addLocked(s)
	}
	s.ledger, s.conn = ledger, c
	return s, nil
}

// start makes a new session for c.
func (t *sessionTable) start(c *conn) (*clientSession, *ipc.Error) {
	ledger, err := t.store.NewLedger()
	if errors.Is(err, engine.ErrBusy) {
		return nil, errSessionsFull
	}
	if err != nil {
		return nil, wireError(err)
	}
	s := &clientSession{id: ledger.ID(), ledger: ledger, conn: c}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addLocked(s)
	return s, nil
}

// addLocked makes room for a session: the ones forgotten could be resumed all
// the same, only without a list of what was refused.
func (t *sessionTable) addLocked(s *clientSession) {
	for len(t.mu.all) >= t.most && t.mu.idle.Len() > 0 {
		delete(t.mu.all, t.mu.idle.Remove(t.mu.idle.Front()).(*clientSession).id)
	}
	t.mu.all[s.id] = s
}

// detach takes a session from its connection, which is finished.
func (t *sessionTable) detach(s *clientSession) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.ledger.Release()
	s.conn, s.idle = nil, t.mu.idle.PushBack(s)
}

// behind lists the connections whose sessions are durable beyond what their
// clients were told. more says that there is one that will be.
func (t *sessionTable) behind() (conns []*conn, more bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.mu.all {
		if s.conn == nil {
			continue
		}
		told := s.told.Load()
		if s.ledger.Durable() > told {
			conns = append(conns, s.conn)
		}
		more = more || s.ledger.Applied() > told
	}
	return conns, more
}

// count is how many sessions there are in the table.
func (t *sessionTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.mu.all)
}
