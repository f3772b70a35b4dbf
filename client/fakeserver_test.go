package client_test

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"rskv/client"
	"rskv/ipc"

	"github.com/stretchr/testify/require"
)

// fakeServer is a daemon over a Go map that misbehaves on demand. It answers what the protocol says,
// so far as a client can tell.
type fakeServer struct {
	t    testing.TB
	path string
	ln   net.Listener
	wg   sync.WaitGroup

	mu     sync.Mutex
	conns  map[net.Conn]bool
	ended  bool // no more of them
	data   map[string][]byte
	expiry map[string]time.Time
	calls  map[ipc.Method]int // requests received

	// Set before the first connection.
	shuffle bool                                                    // answers of one read in random order
	dribble bool                                                    // answers one byte at a time
	instant func(out []byte, q *ipc.Request) []byte                 // answers everything, in place of all the rest
	lie     bool                                                    // stored values come back changed
	silent  bool                                                    // never answers
	hook    func(s *fakeServer, conn net.Conn, q *ipc.Request) bool // true: it has handled q itself

	sessions *fakeSessions // nil: hello is answered with made-up numbers
}

func newFakeServer(t testing.TB) *fakeServer {
	s := &fakeServer{
		t: t, path: filepath.Join(t.TempDir(), "s"),
		conns: map[net.Conn]bool{}, data: map[string][]byte{}, expiry: map[string]time.Time{}, calls: map[ipc.Method]int{},
	}
	s.listen()
	t.Cleanup(s.stop)
	return s
}

// listen starts accepting.
func (s *fakeServer) listen() {
	ln, err := net.Listen("unix", s.path)
	require.NoError(s.t, err)
	s.ln = ln
	s.mu.Lock()
	s.ended = false
	s.mu.Unlock()
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.ended { // taken before the listener was closed, too late for drop
				_ = conn.Close()
			}
			s.conns[conn] = true
			s.mu.Unlock()
			s.wg.Add(1)
			go func() {
				defer s.wg.Done()
				s.serve(conn)
			}()
		}
	}()
}

// stop ends the listener and all connections, as a daemon that exits does.
func (s *fakeServer) stop() {
	_ = s.ln.Close()
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.drop()
	s.wg.Wait()
}

// drop ends all connections.
func (s *fakeServer) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		_ = conn.Close()
	}
	clear(s.conns)
}

// received returns how many requests of method m came in.
func (s *fakeServer) received(m ipc.Method) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[m]
}

func (s *fakeServer) serve(conn net.Conn) {
	defer conn.Close()
	split := ipc.NewSplitter(ipc.MaxRequest)
	lim := ipc.DefaultLimits()
	buf, fill := make([]byte, 64<<10), 0
	var out []byte
	var q ipc.Request
	var ends []int // where each answer in out ends
	for {
		n, err := conn.Read(buf[fill:])
		if err != nil {
			return
		}
		fill += n
		used := 0
		out, ends = out[:0], ends[:0]
		for {
			n, serr := split.Next(buf[used:fill])
			if serr != nil {
				out = ipc.AppendErrorResponse(out, 0, serr.Code, serr.Message)
				_, _ = conn.Write(out)
				return
			}
			if n == 0 {
				break
			}
			if ipc.ParseRequest(buf[used:used+n], &q) != nil {
				return
			}
			used += n
			if s.instant != nil {
				out = s.instant(out, &q)
				ends = append(ends, len(out))
				continue
			}
			s.mu.Lock()
			s.calls[q.Method]++
			s.mu.Unlock()
			if s.hook != nil && s.hook(s, conn, &q) {
				continue
			}
			if s.silent || !q.Answered() {
				continue
			}
			out = s.answer(out, conn, &q, &lim)
			ends = append(ends, len(out))
		}
		if used > 0 {
			fill = copy(buf, buf[used:fill])
		}
		if fill == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
		if !s.send(conn, out, ends) {
			return
		}
	}
}

// send writes the answers in the way the test asked for.
func (s *fakeServer) send(conn net.Conn, out []byte, ends []int) bool {
	if s.shuffle {
		out = shuffled(out, ends)
	}
	if s.dribble {
		for i := range out {
			if _, err := conn.Write(out[i : i+1]); err != nil {
				return false
			}
		}
		return true
	}
	_, err := conn.Write(out)
	return err == nil
}

func shuffled(out []byte, ends []int) []byte {
	var mixed []byte
	for _, i := range rand.Perm(len(ends)) {
		start := 0
		if i > 0 {
			start = ends[i-1]
		}
		mixed = append(mixed, out[start:ends[i]]...)
	}
	return mixed
}

// answer carries q out and appends the response.
func (s *fakeServer) answer(out []byte, conn net.Conn, q *ipc.Request, lim *ipc.Limits) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.conns[conn] {
		return out // dropped: what it sent must not take effect behind what the next one sends
	}
	var c ipc.Call
	if err := ipc.ParseCall(q, lim, &c); err != nil {
		answer := ipc.AppendErrorResponse(nil, q.ID, err.Code, err.Message)
		return s.counted(out, answer, conn, q)
	}
	if s.sessions != nil {
		return s.answerInSession(out, conn, q, &c)
	}
	return s.carryOut(out, q, &c)
}

// carryOut is answer for a call that is right.
func (s *fakeServer) carryOut(out []byte, q *ipc.Request, c *ipc.Call) []byte {
	key := string(c.Key)
	s.expire(c)
	value, there := s.data[key]
	switch c.Method {
	case ipc.MethodTTL:
		if until, expires := s.expiry[key]; there && expires {
			return ipc.AppendIntResult(out, q.ID, time.Until(until).Milliseconds()+1)
		} else if there {
			return ipc.AppendIntResult(out, q.ID, -1)
		}
		return ipc.AppendNilResult(out, q.ID)
	case ipc.MethodExpire:
		return ipc.AppendBoolResult(out, q.ID, there)
	case ipc.MethodPing:
		return ipc.AppendStrResult(out, q.ID, "pong")
	case ipc.MethodGet:
		if !there {
			return ipc.AppendNilResult(out, q.ID)
		}
		if s.lie {
			value = append([]byte("!"), value...)
		}
		return ipc.AppendBinResult(out, q.ID, value)
	case ipc.MethodExists:
		return ipc.AppendBoolResult(out, q.ID, there)
	case ipc.MethodPut:
		ok := c.If == ipc.IfAny || (c.If == ipc.IfPresent) == there
		if ok {
			s.data[key] = append([]byte{}, c.Value...)
		}
		return ipc.AppendBoolResult(out, q.ID, ok)
	case ipc.MethodDel:
		delete(s.data, key)
		if c.Blind {
			return ipc.AppendNilResult(out, q.ID)
		}
		return ipc.AppendBoolResult(out, q.ID, there)
	case ipc.MethodCas:
		ok := c.OldAbsent && !there || !c.OldAbsent && there && string(c.Old) == string(value)
		if ok && c.NewAbsent {
			delete(s.data, key)
		} else if ok {
			s.data[key] = append([]byte{}, c.Value...)
		}
		return ipc.AppendBoolResult(out, q.ID, ok)
	case ipc.MethodAdd:
		var old int64
		if there && len(value) != 8 {
			return ipc.AppendErrorResponse(out, q.ID, ipc.CodeNotInteger, "not a counter")
		} else if there {
			old = int64(binary.LittleEndian.Uint64(value))
		}
		s.data[key] = binary.LittleEndian.AppendUint64(nil, uint64(old+c.Delta))
		return ipc.AppendIntResult(out, q.ID, old+c.Delta)
	case ipc.MethodAppend:
		s.data[key] = append(append([]byte{}, value...), c.Value...)
		return ipc.AppendUintResult(out, q.ID, uint64(len(s.data[key])))
	default:
		return s.answerMany(out, q.ID, c)
	}
}

// expire removes the keys of a call that have expired, and notes the expiry that a write brings.
func (s *fakeServer) expire(c *ipc.Call) {
	for _, k := range append(c.Keys, c.Key) {
		key := string(k)
		if until, expires := s.expiry[key]; expires && !time.Now().Before(until) {
			delete(s.data, key)
		}
		switch {
		case c.Method.Class() != ipc.ClassWrite:
		case c.TTL != 0:
			s.expiry[key] = time.Now().Add(time.Duration(c.TTL) * time.Millisecond)
		case c.Method != ipc.MethodAdd && c.Method != ipc.MethodAppend:
			delete(s.expiry, key)
		}
	}
}

// answerMany carries out the methods without a key of their own.
func (s *fakeServer) answerMany(out []byte, id uint32, c *ipc.Call) []byte {
	switch c.Method {
	case ipc.MethodMGet:
		out = ipc.AppendArrayHeader(ipc.AppendResultHeader(out, id), len(c.Keys))
		for _, k := range c.Keys {
			if v, ok := s.data[string(k)]; ok {
				out = ipc.AppendBin(out, v)
			} else {
				out = ipc.AppendNil(out)
			}
		}
		return out
	case ipc.MethodMPut:
		for i, k := range c.Keys {
			s.data[string(k)] = append([]byte{}, c.Values[i]...)
		}
		return ipc.AppendIntResult(out, id, int64(len(c.Keys)))
	case ipc.MethodMDel:
		n := 0
		for _, k := range c.Keys {
			if _, ok := s.data[string(k)]; ok {
				n++
				delete(s.data, string(k))
			}
		}
		if c.Blind {
			return ipc.AppendNilResult(out, id)
		}
		return ipc.AppendIntResult(out, id, int64(n))
	case ipc.MethodLen:
		return ipc.AppendIntResult(out, id, int64(len(s.data)))
	case ipc.MethodSync:
		out = ipc.AppendMapHeader(ipc.AppendResultHeader(out, id), 1)
		return ipc.AppendUint(ipc.AppendStr(out, "durable"), 41)
	case ipc.MethodStats, ipc.MethodConfig:
		out = ipc.AppendMapHeader(ipc.AppendResultHeader(out, id), 1+len(c.Settings))
		out = ipc.AppendUint(ipc.AppendStr(out, "keys"), uint64(len(s.data)))
		for _, set := range c.Settings {
			out = ipc.AppendStr(ipc.AppendStr(out, set.Name), set.Value)
		}
		return out
	case ipc.MethodHello:
		h := ipc.Hello{Server: "fake", Version: "v", Protocol: 1, Applied: 3, Durable: 2, Role: ipc.ClassAdmin, Limits: ipc.DefaultLimits()}
		return ipc.AppendHello(ipc.AppendResultHeader(out, id), &h)
	case ipc.MethodCheckpoint:
		out = ipc.AppendMapHeader(ipc.AppendResultHeader(out, id), 4)
		out = ipc.AppendUint(ipc.AppendStr(out, "version"), 7)
		out = ipc.AppendUint(ipc.AppendStr(out, "durable"), 300)
		out = ipc.AppendUint(ipc.AppendStr(out, "bytes"), uint64(len(c.Checkpoint.Cookie)))
		return ipc.AppendUint(ipc.AppendStr(out, "ms"), 70_000)
	}
	return ipc.AppendErrorResponse(out, id, ipc.CodeInternal, "fake server does not know "+c.Method.String())
}

// dialFake connects a client to s for the length of the test.
func dialFake(t testing.TB, s *fakeServer, opts ...client.Option) *client.Client {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, s.path, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// within returns a context that ends when the test has waited too long.
func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}
