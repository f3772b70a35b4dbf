package daemon

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rskv/ipc"
)

// A monitor shows an administrator what requests come in. It is a bounded list
// that connections add to and its own connection takes from: what does not fit
// is counted and dropped, and nobody waits. While there is none, requests cost
// one look a burst.

const (
	// monitorKept is how many requests a monitor keeps until they are taken,
	// some 100 bytes each.
	monitorKept = 4096
	// monitorsMax is how many monitors there may be: each costs every request.
	monitorsMax = 8
)

// monitored is one request as a monitor shows it.
type monitored struct {
	at       int64 // microseconds of Unix time
	uid, pid int
	client   string
	method   ipc.Method
	key      string
	keys     int
	bytes    int // of values
}

// monitor is one list.
type monitor struct {
	every uint64        // it takes one request of so many; immutable
	came  atomic.Uint64 // requests offered

	mu      sync.Mutex
	list    []monitored // guarded by mu
	dropped uint64      // since the last take; guarded by mu
}

// wants reports whether the next request is one of the sample.
func (m *monitor) wants() bool { return m.came.Add(1)%m.every == 0 }

func (m *monitor) add(r *monitored) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.list) == monitorKept {
		m.dropped++
		return
	}
	m.list = append(m.list, *r)
}

// take empties the list.
func (m *monitor) take() (list []monitored, dropped uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list, dropped = m.list, m.dropped
	m.list, m.dropped = nil, 0
	return list, dropped
}

// monitors is all monitors of a daemon.
type monitors struct {
	running atomic.Pointer[[]*monitor] // nil: none; what it points to is immutable
	mu      sync.Mutex                 // held to change it
}

// start adds a monitor; nil: there are too many.
func (s *monitors) start(every int) *monitor {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []*monitor
	if old := s.running.Load(); old != nil {
		list = slices.Clone(*old)
	}
	if len(list) == monitorsMax {
		return nil
	}
	m := &monitor{every: uint64(max(every, 1))}
	list = append(list, m)
	s.running.Store(&list)
	return m
}

func (s *monitors) stop(m *monitor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(*s.running.Load()), func(other *monitor) bool { return other == m })
	if len(list) == 0 {
		s.running.Store(nil)
		return
	}
	s.running.Store(&list)
}

// first is the first request of a burst, for the slow log.
type first struct {
	requests int // of the burst so far
	method   ipc.Method
	key      [keyShown]byte
	length   int // of the key, as far as it is kept
}

// watch begins a burst: it finds out who wants to know of its requests.
func (c *conn) watch() {
	cfg := c.server.settings()
	c.slow, c.rate = int64(cfg.SlowlogThreshold), cfg.MaxRateUser
	c.monitors = c.server.monitors.running.Load()
	c.watched = c.slow > 0 || c.monitors != nil
	c.first.requests = 0
}

// watchBurst ends a burst. What had to wait in it is timed by itself.
func (c *conn) watchBurst() {
	if f := &c.first; c.slow > 0 && f.requests > 0 {
		c.slowly(f.method, string(f.key[:f.length]), f.requests, waitedNone, c.began)
	}
}

// observe shows the request in hand to who wants to know of it.
func (c *conn) observe(method ipc.Method) {
	q := &c.call
	key, keys := firstKey(q)
	if f := &c.first; c.slow > 0 {
		if f.requests++; f.requests == 1 {
			f.method = method
			f.length = copy(f.key[:], key)
		}
	}
	if c.monitors == nil || method == ipc.MethodMonitor {
		return
	}
	for _, m := range *c.monitors {
		if m.wants() {
			m.add(&monitored{
				at: time.Now().UnixMicro(), uid: c.peer.uid, pid: c.peer.pid, client: c.name,
				method: method, key: shortKey(key), keys: keys, bytes: valueBytes(q),
			})
		}
	}
}

// firstKey returns the first key of a call, and how many there are. What the
// method does not have is left over from another call.
func firstKey(q *ipc.Call) (key []byte, keys int) {
	switch {
	case q.Method.HasKey():
		return q.Key, 1
	case len(q.Keys) > 0:
		return q.Keys[0], len(q.Keys)
	}
	return nil, 0
}

// valueBytes is how many bytes of values a call brings to the store.
func valueBytes(q *ipc.Call) (n int) {
	switch q.Method {
	case ipc.MethodPut, ipc.MethodCas, ipc.MethodAppend:
		return len(q.Value)
	case ipc.MethodMPut:
		for _, v := range q.Values {
			n += len(v)
		}
	}
	return n
}

var (
	errMonitors       = &ipc.Error{Code: ipc.CodeBusy, Message: "monitor: as many as may are running"}
	errMonitorRuns    = &ipc.Error{Code: ipc.CodeBadRequest, Message: "monitor: it is running on this connection"}
	errMonitorStopped = &ipc.Error{Code: ipc.CodeBadRequest, Message: "monitor: it is not running on this connection"}
)

// monitor carries out the method of that name.
func (c *conn) monitor(k call) {
	switch action := c.call.Action; {
	case action == ipc.ActionStop:
		c.reply(&k, yesNo(c.endMonitor()))
	case action == ipc.ActionStart && c.monitoring != nil:
		c.refuse(&k, errMonitorRuns)
	case action == ipc.ActionStart:
		if c.monitoring = c.server.monitors.start(c.call.Number); c.monitoring == nil {
			c.refuse(&k, errMonitors)
			return
		}
		c.reply(&k, yesNo(true))
	case c.monitoring == nil:
		c.refuse(&k, errMonitorStopped)
	default:
		list, dropped := c.monitoring.take()
		if k.answered {
			c.output.ready = appendMonitored(ipc.AppendResultHeader(c.output.ready, k.id), list, dropped)
		}
	}
}

// endMonitor ends the connection's monitor, and reports whether it had one.
func (c *conn) endMonitor() bool {
	m := c.monitoring
	if m != nil {
		c.monitoring = nil
		c.server.monitors.stop(m)
	}
	return m != nil
}

func appendMonitored(dst []byte, list []monitored, dropped uint64) []byte {
	dst = ipc.AppendUint(ipc.AppendStr(ipc.AppendMapHeader(dst, 2), "dropped"), dropped)
	dst = ipc.AppendArrayHeader(ipc.AppendStr(dst, "requests"), len(list))
	for i := range list {
		r := &list[i]
		dst = ipc.AppendInt(ipc.AppendArrayHeader(dst, 8), r.at)
		dst = ipc.AppendInt(ipc.AppendInt(dst, int64(r.uid)), int64(r.pid))
		dst = ipc.AppendStr(ipc.AppendStr(dst, r.client), r.method.String())
		dst = appendKey(dst, r.key)
		dst = ipc.AppendInt(ipc.AppendInt(dst, int64(r.keys)), int64(r.bytes))
	}
	return dst
}
