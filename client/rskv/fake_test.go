package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"rskv/ipc"
)

// fake is a daemon without a store: a map behind the wire. It lets the tool be
// tested without the engine, and answer what a healthy daemon would not.
type fake struct {
	socket string

	mu   sync.Mutex
	data map[string][]byte // guarded by mu
	ttl  map[string]int64  // ms; guarded by mu
	// lie, when set, replaces the answer to a call. Guarded by mu.
	lie func(c *ipc.Call) *ipc.Error
	// stream is what a backup reads, digest what it is said to be. Guarded by mu.
	stream []byte
	health string // guarded by mu
	digest [32]byte
}

// backs up from now on as stream.
func (f *fake) backs(stream []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stream, f.digest = stream, sha256.Sum256(stream[:len(stream)-ipc.BackupTail])
}

func (f *fake) set(key, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.data[key] = []byte(value)
}

func (f *fake) remove(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.data, key)
}

// all returns a copy of what is stored.
func (f *fake) all() map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make(map[string]string, len(f.data))
	for k, v := range f.data {
		all[k] = string(v)
	}
	return all
}

// lies replaces the answers to calls for which lie returns an error.
func (f *fake) lies(lie func(c *ipc.Call) *ipc.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lie = lie
}

// newFake starts a fake that ends with the test.
func newFake(t testing.TB) *fake {
	t.Helper()
	f := &fake{socket: filepath.Join(t.TempDir(), "s"), data: map[string][]byte{}, ttl: map[string]int64{}}
	l, err := net.Listen("unix", f.socket)
	if err != nil {
		t.Fatal(err)
	}
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { f.serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Wait()
	})
	return f
}

// serve answers one connection until its other end hangs up.
func (f *fake) serve(conn net.Conn) {
	defer conn.Close()
	split := ipc.NewSplitter(ipc.MaxRequest)
	var in, out []byte
	chunk := make([]byte, 64<<10)
	for {
		n, err := conn.Read(chunk)
		if err != nil {
			return
		}
		in = append(in, chunk[:n]...)
		used := 0
		for {
			size, serr := split.Next(in[used:])
			if serr != nil {
				return
			}
			if size == 0 {
				break
			}
			var q ipc.Request
			if ipc.ParseRequest(in[used:used+size], &q) != nil {
				return
			}
			out = f.answer(out, &q)
			used += size
		}
		in = append(in[:0], in[used:]...)
		if _, err := conn.Write(out); err != nil {
			return
		}
		out = out[:0]
	}
}

func (f *fake) answer(out []byte, q *ipc.Request) []byte {
	limits := ipc.DefaultLimits()
	var c ipc.Call
	refused := ipc.ParseCall(q, &limits, &c)
	f.mu.Lock()
	defer f.mu.Unlock()
	if refused == nil && f.lie != nil {
		refused = f.lie(&c)
	}
	if refused != nil {
		return ipc.AppendErrorResponse(out, q.ID, refused.Code, refused.Message)
	}
	return f.carryOutLocked(out, q.ID, &c)
}

func (f *fake) carryOutLocked(out []byte, id uint32, c *ipc.Call) []byte {
	key := string(c.Key)
	old, found := f.data[key]
	if c.Method.Class() == ipc.ClassWrite && c.TTL != 0 {
		for _, k := range append(c.Keys, c.Key) {
			f.ttl[string(k)] = c.TTL
		}
	}
	switch c.Method {
	case ipc.MethodPing:
		return ipc.AppendStrResult(out, id, "pong")
	case ipc.MethodGet:
		if !found {
			return ipc.AppendNilResult(out, id)
		}
		return ipc.AppendBinResult(out, id, old)
	case ipc.MethodExists:
		return ipc.AppendBoolResult(out, id, found)
	case ipc.MethodPut:
		store := c.If == ipc.IfAny || found == (c.If == ipc.IfPresent)
		if store {
			f.data[key] = bytes.Clone(c.Value)
		}
		return ipc.AppendBoolResult(out, id, store)
	case ipc.MethodDel:
		delete(f.data, key)
		return ipc.AppendBoolResult(out, id, found)
	case ipc.MethodCas:
		swap := found != c.OldAbsent && bytes.Equal(old, c.Old)
		if swap && c.NewAbsent {
			delete(f.data, key)
		} else if swap {
			f.data[key] = bytes.Clone(c.Value)
		}
		return ipc.AppendBoolResult(out, id, swap)
	case ipc.MethodAdd:
		var sum int64
		if found {
			if len(old) != 8 {
				return ipc.AppendErrorResponse(out, id, ipc.CodeNotInteger, "not a counter")
			}
			sum = int64(binary.LittleEndian.Uint64(old))
		}
		sum += c.Delta
		f.data[key] = binary.LittleEndian.AppendUint64(nil, uint64(sum))
		return ipc.AppendIntResult(out, id, sum)
	case ipc.MethodAppend:
		f.data[key] = append(bytes.Clone(old), c.Value...)
		return ipc.AppendIntResult(out, id, int64(len(f.data[key])))
	case ipc.MethodExpire:
		if delete(f.ttl, key); found && c.TTL != 0 {
			f.ttl[key] = c.TTL
		}
		return ipc.AppendBoolResult(out, id, found)
	case ipc.MethodTTL:
		left, expires := f.ttl[key]
		switch {
		case !found:
			return ipc.AppendNilResult(out, id)
		case !expires:
			return ipc.AppendIntResult(out, id, -1)
		}
		return ipc.AppendIntResult(out, id, left)
	case ipc.MethodMGet:
		out = ipc.AppendArrayHeader(ipc.AppendResultHeader(out, id), len(c.Keys))
		for _, k := range c.Keys {
			if v, ok := f.data[string(k)]; ok {
				out = ipc.AppendBin(out, v)
			} else {
				out = ipc.AppendNil(out)
			}
		}
		return out
	case ipc.MethodMPut:
		for i, k := range c.Keys {
			f.data[string(k)] = bytes.Clone(c.Values[i])
		}
		return ipc.AppendIntResult(out, id, int64(len(c.Keys)))
	case ipc.MethodMDel:
		n := 0
		for _, k := range c.Keys {
			if _, ok := f.data[string(k)]; ok {
				n++
				delete(f.data, string(k))
			}
		}
		return ipc.AppendIntResult(out, id, int64(n))
	case ipc.MethodHealth:
		out = ipc.AppendMapHeader(ipc.AppendResultHeader(out, id), 3)
		out = ipc.AppendStr(ipc.AppendStr(out, "state"), f.health)
		out = ipc.AppendStr(ipc.AppendStr(out, "error"), "reason")
		return ipc.AppendUint(ipc.AppendStr(out, "since"), 1767225600000)
	case ipc.MethodSync:
		out = ipc.AppendMapHeader(ipc.AppendResultHeader(out, id), 1)
		return ipc.AppendUint(ipc.AppendStr(out, "durable"), 7)
	case ipc.MethodStats:
		out = ipc.AppendMapHeader(ipc.AppendResultHeader(out, id), 2)
		out = ipc.AppendUint(ipc.AppendStr(out, "keys"), uint64(len(f.data)))
		out = ipc.AppendMapHeader(ipc.AppendStr(out, "log"), 1)
		return ipc.AppendStr(ipc.AppendStr(out, "backend"), "none")
	case ipc.MethodConfig:
		out = ipc.AppendMapHeader(ipc.AppendResultHeader(out, id), 1+len(c.Settings))
		out = ipc.AppendStr(ipc.AppendStr(out, "memory"), "32MiB")
		for _, s := range c.Settings {
			out = ipc.AppendStr(ipc.AppendStr(out, s.Name), s.Value)
		}
		return out
	case ipc.MethodCheckpoint:
		out = ipc.AppendMapHeader(ipc.AppendResultHeader(out, id), 4)
		for i, name := range []string{"version", "durable", "bytes", "ms"} {
			out = ipc.AppendUint(ipc.AppendStr(out, name), uint64(i))
		}
		return out
	}
	if c.Method == ipc.MethodBackup {
		return f.backupLocked(ipc.AppendResultHeader(out, id), c)
	}
	return ipc.AppendErrorResponse(out, id, ipc.CodeUnknownMethod, "not in the fake")
}

func (f *fake) backupLocked(out []byte, c *ipc.Call) []byte {
	const piece = 1000
	switch c.Action {
	case ipc.ActionOpen:
		out = ipc.AppendUint(ipc.AppendStr(ipc.AppendMapHeader(out, 2), "bytes"), uint64(len(f.stream)))
		return ipc.AppendUint(ipc.AppendStr(out, "piece"), piece)
	case ipc.ActionRead:
		return ipc.AppendBin(out, f.stream[c.Offset:min(int(c.Offset)+piece, len(f.stream))])
	}
	out = ipc.AppendUint(ipc.AppendStr(ipc.AppendMapHeader(out, 5), "bytes"), uint64(len(f.stream)))
	out = ipc.AppendUint(ipc.AppendStr(out, "version"), 42)
	out = ipc.AppendUint(ipc.AppendStr(out, "time"), 1767225600000)
	out = ipc.AppendUint(ipc.AppendStr(out, "keys"), 1234)
	return ipc.AppendBin(ipc.AppendStr(out, "sha256"), f.digest[:])
}
