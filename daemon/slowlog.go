package daemon

import (
	"sync"
	"time"

	"rskv/engine"
	"rskv/ipc"
)

// The slow log is the last requests that took longer than slowlog_threshold.
// While that is 0 it costs a comparison a burst; otherwise what is slow is found
// where latency.go takes the time anyway: by the burst, or by itself for what
// had to wait.

// keyShown is how many bytes of a key the slow log and monitors show: enough to
// know it by, little to keep.
const keyShown = 64

// shortKey is the beginning of a key, kept.
func shortKey(key []byte) string { return string(key[:min(len(key), keyShown)]) }

// What a slow request waited for.
const (
	waitedNone   = "none"
	waitedDisk   = "disk"
	waitedCommit = "commit"
)

// slowEntry is one entry of the slow log.
type slowEntry struct {
	id       uint64    // from 1
	at       time.Time // when it was done
	took     time.Duration
	waited   string
	method   ipc.Method
	key      string // its beginning; "": none
	requests int    // of the burst; 1 for one by itself
	client   string
	uid, pid int
}

// slowlog keeps entries in the order in which they were done.
type slowlog struct {
	mu   sync.Mutex
	ring []slowEntry // entry id has its place at id % len; guarded by mu
	last uint64      // id of the newest; guarded by mu
	from uint64      // those up to here are forgotten; guarded by mu
}

// add takes an entry, and lets the oldest go if there are size already.
func (l *slowlog) add(e slowEntry, size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ring == nil {
		l.ring = make([]slowEntry, size)
	}
	l.last++
	e.id = l.last
	l.ring[e.id%uint64(len(l.ring))] = e
}

// oldestLocked is the first id that is kept.
func (l *slowlog) oldestLocked() uint64 {
	first := l.from + 1
	if n := uint64(len(l.ring)); l.last >= n {
		first = max(first, l.last-n+1)
	}
	return first
}

// newest returns up to count entries, the newest first.
func (l *slowlog) newest(count int) []slowEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []slowEntry
	for id := l.last; id >= l.oldestLocked() && len(list) < count; id-- {
		list = append(list, l.ring[id%uint64(len(l.ring))])
	}
	return list
}

// reset forgets all entries and returns how many there were.
func (l *slowlog) reset() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := int(l.last + 1 - l.oldestLocked())
	l.from = l.last
	clear(l.ring)
	return n
}

// total is how many there have ever been.
func (l *slowlog) total() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// slowly notes a request, or a burst of them, that is done and was begun at some
// time by server.now, if it took too long. Called with conn.mu held, and only
// while the slow log is on.
func (c *conn) slowly(method ipc.Method, key string, requests int, waited string, began int64) {
	took := c.server.now() - began
	if took < c.slow {
		return
	}
	c.server.slowlog.add(slowEntry{
		at: time.Now(), took: time.Duration(took), waited: waited, method: method, key: key,
		requests: requests, client: c.name, uid: c.peer.uid, pid: c.peer.pid,
	}, c.server.settings().SlowlogSize)
}

// maybeSlow looks at a request of one key that is done; called while the slow
// log is on. One that waits for a commit is looked at after that.
func (c *conn) maybeSlow(k *call, op *engine.Op) {
	if k.sync && op.Err == nil {
		if k.key == "" {
			k.key = shortKey(op.Key)
		}
	} else if k.parked {
		c.slowly(k.method, k.key, 1, waitedDisk, k.began)
	}
}

// slowlog carries out the method of that name.
func (c *conn) slowlog(k call) {
	l := &c.server.slowlog
	if c.call.Action == ipc.ActionReset {
		c.reply(&k, result{resultInt, int64(l.reset())})
		return
	}
	count := c.call.Number
	if count == 0 {
		count = slowlogMax
	}
	list := l.newest(count)
	if !k.answered {
		return
	}
	dst := ipc.AppendArrayHeader(ipc.AppendResultHeader(c.output.ready, k.id), len(list))
	for i := range list {
		dst = list[i].append(dst)
	}
	c.output.ready = dst
}

func (e *slowEntry) append(dst []byte) []byte {
	dst = ipc.AppendUint(ipc.AppendStr(ipc.AppendMapHeader(dst, 10), "id"), e.id)
	dst = ipc.AppendInt(ipc.AppendStr(dst, "time"), e.at.UnixMilli())
	dst = ipc.AppendInt(ipc.AppendStr(dst, "us"), e.took.Microseconds())
	dst = ipc.AppendStr(ipc.AppendStr(dst, "waited"), e.waited)
	dst = ipc.AppendStr(ipc.AppendStr(dst, "method"), e.method.String())
	dst = appendKey(ipc.AppendStr(dst, "key"), e.key)
	dst = ipc.AppendInt(ipc.AppendStr(dst, "requests"), int64(e.requests))
	dst = ipc.AppendStr(ipc.AppendStr(dst, "client"), e.client)
	dst = ipc.AppendInt(ipc.AppendStr(dst, "uid"), int64(e.uid))
	return ipc.AppendInt(ipc.AppendStr(dst, "pid"), int64(e.pid))
}

// appendKey appends a key as bin, and none as nil.
func appendKey(dst []byte, key string) []byte {
	if key == "" {
		return ipc.AppendNil(dst)
	}
	return append(ipc.AppendBinHeader(dst, len(key)), key...)
}
