package client_test

import (
	"bytes"
	"maps"
	"net"
	"testing"

	"rskv/ipc"
)

// fakeSessions makes a fakeServer count writes as a daemon does, and forget what was not committed
// when it crashes. Guarded by the server's mu.
type fakeSessions struct {
	all       map[[ipc.SessionSize]byte]*fakeSession
	held      map[net.Conn]*fakeSession
	begun     byte              // sessions handed out
	committed map[string][]byte // the data as a crash leaves them
	hellos    []ipc.HelloCall

	// Set at will, under mu.
	swallow  func(q *ipc.Request) bool     // q is carried out, and its connection lost instead of answered
	refuse   func(q *ipc.Request) ipc.Code // q is answered with this error unless it is ""
	forget   bool                          // hello knows no session
	vague    bool                          // hello does not tell which writes were refused
	noCommit ipc.Code                      // sync fails with it unless it is ""
	telling  bool                          // commits are told to connections that have a session
}

type fakeSession struct {
	id               [ipc.SessionSize]byte
	applied, durable uint64
	refused          []ipc.Refused
	knownFrom        uint64 // refused tells all above
}

func newSessionServer(t testing.TB) *fakeServer {
	s := newFakeServer(t)
	s.withSessions()
	return s
}

func (s *fakeServer) withSessions() {
	s.mu.Lock() // the server runs already
	defer s.mu.Unlock()
	s.sessions = &fakeSessions{all: map[[ipc.SessionSize]byte]*fakeSession{}, held: map[net.Conn]*fakeSession{}, committed: map[string][]byte{}}
}

// commit makes everything durable.
func (s *fakeServer) commit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commitLocked()
}

func (s *fakeServer) commitLocked() {
	s.sessions.committed = maps.Clone(s.data)
	for _, x := range s.sessions.all {
		x.durable = x.applied
	}
	if s.sessions.telling {
		for conn, x := range s.sessions.held {
			_, _ = conn.Write(ipc.AppendDurableNotification(nil, x.durable))
		}
	}
}

// crash undoes everything that was not committed and ends all connections.
func (s *fakeServer) crash() {
	s.mu.Lock()
	s.data = maps.Clone(s.sessions.committed)
	for _, x := range s.sessions.all {
		x.applied, x.refused, x.knownFrom = x.durable, nil, x.durable
	}
	for conn := range s.conns {
		_ = conn.Close()
	}
	clear(s.conns)
	s.mu.Unlock()
}

// value returns what is stored under key.
func (s *fakeServer) value(key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.data[key])
}

func (s *fakeServer) answerInSession(out []byte, conn net.Conn, q *ipc.Request, c *ipc.Call) []byte {
	x := s.sessions
	switch {
	case q.Method == ipc.MethodHello:
		return s.hello(out, conn, q, &c.Hello)
	case q.Method == ipc.MethodSync && x.noCommit != "":
		return ipc.AppendErrorResponse(out, q.ID, x.noCommit, "sync")
	case q.Method == ipc.MethodSync:
		s.commitLocked()
		s.swallowed(conn, q)
		durable := uint64(0)
		if held := x.held[conn]; held != nil {
			durable = held.durable
		}
		out = ipc.AppendMapHeader(ipc.AppendResultHeader(out, q.ID), 1)
		return ipc.AppendUint(ipc.AppendStr(out, "durable"), durable)
	}
	if x.refuse != nil {
		if code := x.refuse(q); code != "" {
			return s.counted(out, ipc.AppendErrorResponse(nil, q.ID, code, "refused"), conn, q)
		}
	}
	answer := s.carryOut(nil, q, c)
	out = s.counted(out, answer, conn, q)
	s.swallowed(conn, q)
	return out
}

// swallowed loses q's connection instead of its answer, if that is what the test wants.
func (s *fakeServer) swallowed(conn net.Conn, q *ipc.Request) {
	if swallow := s.sessions.swallow; swallow != nil && swallow(q) {
		_ = conn.Close()
		delete(s.conns, conn)
	}
}

// counted counts q, if it is a write of a session, and appends its answer.
func (s *fakeServer) counted(out, answer []byte, conn net.Conn, q *ipc.Request) []byte {
	if s.sessions == nil || q.Method.Class() != ipc.ClassWrite || s.sessions.held[conn] == nil {
		return append(out, answer...)
	}
	x := s.sessions.held[conn]
	x.applied++
	var p ipc.Response
	if err := ipc.ParseResponse(answer, &p); err == nil && p.Failed {
		x.refused = append(x.refused, ipc.Refused{Number: x.applied, Code: ipc.Code(p.Code)})
	}
	return append(out, answer...)
}

func (s *fakeServer) hello(out []byte, conn net.Conn, q *ipc.Request, c *ipc.HelloCall) []byte {
	x := s.sessions
	x.hellos = append(x.hellos, *c)
	session := x.all[c.Session]
	if !c.HasSession {
		x.begun++
		session = &fakeSession{id: [ipc.SessionSize]byte{x.begun}}
		x.all[session.id] = session
	} else if session == nil || x.forget {
		return ipc.AppendErrorResponse(out, q.ID, ipc.CodeSessionUnknown, "unknown")
	}
	for other, has := range x.held {
		if has == session {
			_ = other.Close()
			delete(s.conns, other)
			delete(x.held, other)
		}
	}
	x.held[conn] = session
	h := ipc.Hello{
		Server: "fake", Version: "v", Protocol: 1, Session: session.id, Applied: session.applied,
		Durable: session.durable, Role: ipc.ClassAdmin, Limits: ipc.DefaultLimits(),
	}
	if c.HasSeen && c.Seen >= session.knownFrom && !x.vague {
		h.Refused = []ipc.Refused{}
		for _, r := range session.refused {
			if r.Number > c.Seen {
				h.Refused = append(h.Refused, r)
			}
		}
	}
	return ipc.AppendHello(ipc.AppendResultHeader(out, q.ID), &h)
}
