package client

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"rskv/ipc"
)

// flight is one or more requests that are submitted together and waited for together, with their
// answers. Its life:
//
//	filled     by the caller: buf and ops
//	in flight  owned by who reads from submit on, the run goroutine as a rule; the caller only waits
//	landed     done was sent: the caller owns it again, with answers and arena
//	given up   the caller's context ended: nobody waits, who reads drops it when it lands
type flight struct {
	buf     []byte   // the requests, one behind the other
	ops     []op     // where each of them is
	answers []answer // answers[i] belongs to ops[i]
	arena   []byte   // the bytes that answers point into
	left    int      // answers still to come; owned by who reads while in flight
	writes  load     // how much of it is writes
	waits   bool     // its caller does nothing but wait for it
	leads   bool     // its caller writes and reads, see lone.go

	done    chan struct{} // one token when left reaches zero
	givenUp atomic.Bool   // set by the caller, read by who reads
}

// op is one request of a flight.
type op struct {
	start, end int    // its bytes in buf
	at         uint64 // where it begins in everything this client ever queued; guarded by mu
	id         uint32 // its slot; guarded by mu
	tries      uint8  // connections it was queued for; guarded by mu
	sent       bool   // a connection that was lost had taken all of it; guarded by mu
	nature     nature
}

// nature is what a lost connection means for a request.
type nature uint8

const (
	// natureWrite changes keys: never sent twice, but by a session, which counts it.
	natureWrite nature = iota
	// natureRead changes nothing, so that it may be sent twice.
	natureRead
	// natureOnce changes something other than keys, or is about its connection: never sent twice.
	natureOnce
	// natureDurable is natureOnce whose answer tells how far the session is durable.
	natureDurable
	// natureSync is natureDurable that a session may send twice: behind its writes, it asks for the same.
	natureSync
)

// answer is one result, decoded as far as its type.
type answer struct {
	kind     ipc.Kind // KindNone: failed with err, or not there yet
	number   uint64   // of a bool (0, 1) or an int (two's complement)
	off, end int      // of str and bin, and of arrays and maps in their encoded form
	err      error
}

// Sizes above which a flight's buffers are not kept for the next one: an occasional large value must
// not stay in memory for ever.
const (
	keptBytes = 64 << 10
	keptOps   = 1024
)

var flights = sync.Pool{New: func() any { return newFlight() }}

func newFlight() *flight { return &flight{done: make(chan struct{}, 1)} }

// takeFlight returns an empty flight.
func takeFlight() *flight { return flights.Get().(*flight) }

// release gives a landed flight back.
func (f *flight) release() {
	f.reset()
	if cap(f.buf) > keptBytes {
		f.buf = nil
	}
	if cap(f.arena) > keptBytes {
		f.arena = nil
	}
	if cap(f.ops) > keptOps {
		f.ops, f.answers = nil, nil
	}
	flights.Put(f)
}

func (f *flight) reset() {
	clear(f.answers) // lets go of errors
	f.buf, f.ops, f.answers, f.arena, f.left = f.buf[:0], f.ops[:0], f.answers[:0], f.arena[:0], 0
	f.writes, f.waits, f.leads = load{}, false, false
}

// begin appends the head of a request, which the caller completes, and returns its start.
func (f *flight) begin(m ipc.Method, count int) int {
	start := len(f.buf)
	f.buf = ipc.AppendPatchableHeader(f.buf, m, count)
	return start
}

// end closes the request that began at start.
func (f *flight) end(start int, n nature) {
	f.ops = append(f.ops, op{start: start, end: len(f.buf), nature: n})
	if n == natureWrite {
		f.writes.add(load{1, len(f.buf) - start})
	}
	f.answers = append(f.answers, answer{})
}

// message returns the bytes of request i.
func (f *flight) message(i int32) []byte { return f.buf[f.ops[i].start:f.ops[i].end] }

// take keeps response p as the answer to ops[i]. Who reads calls it.
func (f *flight) take(i int, p *ipc.Response) {
	a := &f.answers[i]
	if p.Failed {
		a.err = p.Err()
	} else if !a.decode(&p.Result, &f.arena) {
		a.kind, a.err = ipc.KindNone, ErrProtocol
	}
	f.landed()
}

// landed counts one answer. With the last one the flight passes back to the caller.
func (f *flight) landed() {
	if f.left--; f.left == 0 {
		f.done <- struct{}{}
	}
}

// wait returns when all answers are there, or with the context's error: then the flight belongs to
// who reads for good.
func (f *flight) wait(ctx context.Context) error {
	ended := ctx.Done()
	if ended == nil {
		<-f.done
		return nil
	}
	select {
	case <-f.done:
		return nil
	case <-ended:
	}
	select {
	case <-f.done: // both: the answer counts
		return nil
	default:
		f.givenUp.Store(true)
		return ctx.Err()
	}
}

// decode keeps the one value in r, copying its bytes to the end of arena.
func (a *answer) decode(r *ipc.Reader, arena *[]byte) bool {
	a.kind = r.Kind()
	var raw []byte
	var err error
	switch a.kind {
	case ipc.KindNil:
		return true
	case ipc.KindBool:
		v, err := r.Bool()
		if v {
			a.number = 1
		}
		return err == nil
	case ipc.KindInt:
		v, err := r.Int()
		if err == nil {
			a.number = uint64(v)
			return true
		}
		a.number, err = r.Uint()
		return err == nil
	case ipc.KindBin, ipc.KindStr:
		raw, err = r.Bytes()
	case ipc.KindArray, ipc.KindMap:
		raw, err = r.Raw()
	default:
		return false
	}
	a.off = len(*arena)
	*arena = append(*arena, raw...)
	a.end = len(*arena)
	return err == nil
}

// bytes returns the byte string of answer i, nil if it is nil; aliases the arena.
func (f *flight) bytes(i int) ([]byte, error) {
	a := &f.answers[i]
	switch {
	case a.err != nil:
		return nil, a.err
	case a.off == a.end && (a.kind == ipc.KindBin || a.kind == ipc.KindStr):
		return []byte{}, nil // not nil, even when there is no arena
	case a.kind == ipc.KindBin, a.kind == ipc.KindStr:
		return f.arena[a.off:a.end:a.end], nil
	case a.kind == ipc.KindNil:
		return nil, nil
	}
	return nil, ErrProtocol
}

// value is bytes for a key that must be there.
func (f *flight) value(i int) ([]byte, error) {
	v, err := f.bytes(i)
	if err == nil && v == nil {
		err = ErrNotFound
	}
	return v, err
}

// bool returns the bool of answer i; nil, the answer of a blind delete, is false.
func (f *flight) bool(i int) (bool, error) {
	a := &f.answers[i]
	switch {
	case a.err != nil:
		return false, a.err
	case a.kind == ipc.KindBool, a.kind == ipc.KindNil:
		return a.number == 1, nil
	}
	return false, ErrProtocol
}

// int returns the integer of answer i; nil, the answer of a blind mdel, is 0.
func (f *flight) int(i int) (int64, error) {
	a := &f.answers[i]
	switch {
	case a.err != nil:
		return 0, a.err
	case a.kind == ipc.KindInt, a.kind == ipc.KindNil:
		return int64(a.number), nil
	}
	return 0, ErrProtocol
}

// ttl returns the time left that answer i tells.
func (f *flight) ttl(i int) (time.Duration, error) {
	ms, err := f.int(i)
	switch {
	case err != nil:
		return 0, err
	case f.answers[i].kind == ipc.KindNil:
		return 0, ErrNotFound
	case ms < 0:
		return NoExpiry, nil
	}
	return time.Duration(min(ms, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond, nil
}

// raw returns a reader over the array or map of answer i; aliases the arena.
func (f *flight) raw(i int, kind ipc.Kind) (ipc.Reader, error) {
	a := &f.answers[i]
	switch {
	case a.err != nil:
		return ipc.Reader{}, a.err
	case a.kind == kind:
		return ipc.NewReader(f.arena[a.off:a.end:a.end]), nil
	}
	return ipc.Reader{}, ErrProtocol
}
