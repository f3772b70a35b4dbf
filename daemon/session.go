package daemon

import (
	"container/list"
	"crypto/rand"
	"slices"
	"sync"
	"sync/atomic"

	"rskv/ipc"
)

// refusedMax is how many refused writes a session remembers. A client has
// fewer answers outstanding than that, or is in trouble that a longer list
// would not mend.
const refusedMax = 4096

// clientSession is what a client can resume after it lost its connection.
//
// While a connection has it, that connection owns it; the table gives it from
// one to the next only after the first is done.
type clientSession struct {
	id       [ipc.SessionSize]byte // immutable
	numbered uint64                // writes received, as of the last time a connection gave it back
	durable  atomic.Uint64         // highest number on stable storage

	refused   []ipc.Refused // the last refusedMax writes answered with an error
	forgotten uint64        // highest number that was dropped from refused

	// guarded by sessionTable.mu
	conn *conn         // that has it; nil: none
	idle *list.Element // its place in sessionTable.mu.idle while none has it
}

// durableUpTo notes that a commit covers the writes up to number.
func (s *clientSession) durableUpTo(number uint64) {
	for {
		old := s.durable.Load()
		if number <= old || s.durable.CompareAndSwap(old, number) {
			return
		}
	}
}

// refuse notes a write that was answered with an error.
func (s *clientSession) refuse(number uint64, code ipc.Code) {
	if len(s.refused) == refusedMax {
		s.forgotten = max(s.forgotten, s.refused[0].Number)
		s.refused = slices.Delete(s.refused, 0, 1)
	}
	s.refused = append(s.refused, ipc.Refused{Number: number, Code: code})
}

// refusedAfter lists the refused writes with a number above seen, in order.
func (s *clientSession) refusedAfter(seen uint64) []ipc.Refused {
	var after []ipc.Refused
	for _, r := range s.refused {
		if r.Number > seen {
			after = append(after, r)
		}
	}
	slices.SortFunc(after, func(a, b ipc.Refused) int { return int(int64(a.Number - b.Number)) })
	return after
}

// sessionTable is the sessions the daemon knows. Every one is in memory only:
// after a restart of the daemon none is known.
type sessionTable struct {
	most func() int // how many, at the moment
	mu   struct {
		sync.Mutex
		all  map[[ipc.SessionSize]byte]*clientSession
		idle *list.List // of *clientSession, the one unused for longest first
	}
}

func newSessionTable(most func() int) *sessionTable {
	t := &sessionTable{most: most}
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
		if s == nil {
			return nil, errSessionUnknown
		}
		if holder == nil {
			if h.HasSeen && h.Seen < s.forgotten {
				t.detach(s)
				return nil, errSessionUnknown
			}
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

// claim gives c the session id if nobody has it, and else tells who does.
func (t *sessionTable) claim(c *conn, id [ipc.SessionSize]byte) (*clientSession, *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.mu.all[id]
	if s == nil {
		return nil, nil
	}
	if s.conn != nil {
		return s, s.conn
	}
	t.mu.idle.Remove(s.idle)
	s.idle, s.conn = nil, c
	return s, nil
}

// start makes a new session for c.
func (t *sessionTable) start(c *conn) (*clientSession, *ipc.Error) {
	s := &clientSession{conn: c}
	_, _ = rand.Read(s.id[:]) // never fails
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.mu.all) >= t.most() {
		oldest := t.mu.idle.Front()
		if oldest == nil {
			return nil, errSessionsFull
		}
		delete(t.mu.all, t.mu.idle.Remove(oldest).(*clientSession).id)
	}
	t.mu.all[s.id] = s
	return s, nil
}

// detach takes a session from its connection, which is finished.
func (t *sessionTable) detach(s *clientSession) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.conn, s.idle = nil, t.mu.idle.PushBack(s)
}

// count is how many sessions there are.
func (t *sessionTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.mu.all)
}
