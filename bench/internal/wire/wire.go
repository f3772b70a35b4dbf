// Package wire is a load generator for servers on a Unix socket. It speaks two
// dialects by hand, so that the same loop, with the same cost on this side,
// drives both servers that are compared:
//
//	Load.Run                     one goroutine a connection
//	   draw keys -> encode P requests -> one write
//	   read -> take answers until all P are there -> check each -> next window
//
// A window is a closed loop: the next P requests go out when the last answer of
// the P before has come. redis-benchmark -P does the same.
//
// Every answer is checked: the value of a key begins with the key.
package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rskv/bench/internal/draw"
	"rskv/bench/internal/measure"
)

// KeySize is the length of every key in bytes: redis-benchmark's own form, so
// that it finds them too.
const KeySize = 16

// AppendKey appends "key:" and twelve digits.
func AppendKey(dst []byte, n uint64) []byte {
	at := len(dst)
	dst = append(dst, "key:000000000000"...)
	for i := at + KeySize - 1; n > 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

// AppendValue appends a value of size bytes for key n.
func AppendValue(dst []byte, n uint64, size int) []byte {
	end := len(dst) + size
	for len(dst) < end {
		dst = AppendKey(dst, n)
	}
	return dst[:end]
}

// Answer is one answer of a server.
type Answer struct {
	ID    uint32 // of the request, where the dialect has it
	Value []byte // of a get; aliases the input
	Found bool   // a value came, or a put was carried out
}

// Dialect is how one kind of server is spoken to. It has no state.
type Dialect interface {
	AppendGet(dst []byte, id uint32, key []byte) []byte
	AppendPut(dst []byte, id uint32, key, value []byte) []byte
	// Take reads the answer at the start of buf into a and returns its length,
	// 0 when more bytes are needed. An error answer is an error.
	Take(buf []byte, a *Answer) (n int, err error)
	// Ordered says that answers come in the order of the requests and carry no id.
	Ordered() bool
}

// Load is what is asked of a server.
type Load struct {
	Dialect     Dialect
	Socket      string
	Connections int
	Window      int // requests in flight on each connection
	Keys        uint64
	ValueSize   int
	Write       bool
	// Source draws the keys of connection c.
	Source func(c int) draw.Source
	// Limit ends each connection after that many requests; 0: the time does.
	Limit int
	// Times takes the time of each request in nanoseconds, unless it is nil.
	Times *hdrhistogram.Histogram
}

// Run asks for about d and returns what was answered. CPU is left zero.
func (l *Load) Run(ctx context.Context, d time.Duration) (measure.Sample, error) {
	conns, err := l.dial(ctx)
	if err != nil {
		return measure.Sample{}, err
	}
	defer closeAll(conns)
	stopReads := context.AfterFunc(ctx, func() { closeAll(conns) })
	defer stopReads()

	var (
		stop    atomic.Bool
		wg      sync.WaitGroup
		begin   = time.Now()
		timer   = time.AfterFunc(d, func() { stop.Store(true) })
		callers = make([]caller, l.Connections)
		errs    = make([]error, l.Connections)
	)
	defer timer.Stop()
	for i := range callers {
		callers[i] = caller{load: l, conn: conns[i], source: l.Source(i)}
		wg.Go(func() { errs[i] = callers[i].run(&stop) })
	}
	wg.Wait()
	s := measure.Sample{Elapsed: time.Since(begin)}
	for i := range callers {
		s.Ops += callers[i].ops
		if !l.Write {
			s.Reads += callers[i].ops
			s.Hits += callers[i].hits
		}
		if l.Times != nil && callers[i].times != nil {
			l.Times.Merge(callers[i].times)
		}
	}
	return s, errors.Join(errs...)
}

func (l *Load) dial(ctx context.Context) ([]net.Conn, error) {
	var dialer net.Dialer
	conns := make([]net.Conn, 0, l.Connections)
	for range l.Connections {
		c, err := dialer.DialContext(ctx, "unix", l.Socket)
		if err != nil {
			closeAll(conns)
			return nil, fmt.Errorf("connect: %w", err)
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close() // nothing is written any more
	}
}

// Preload stores every key once.
func (l Load) Preload(ctx context.Context) error {
	l.Write, l.Times = true, nil
	l.Limit = int(l.Keys) / l.Connections
	keys, conns := l.Keys, uint64(l.Connections)
	if keys%conns != 0 {
		return fmt.Errorf("%d keys do not divide among %d connections", keys, conns)
	}
	l.Source = func(c int) draw.Source { return &sequence{next: uint64(c), step: conns} }
	s, err := l.Run(ctx, time.Hour)
	if err == nil && s.Ops != keys {
		err = fmt.Errorf("stored %d of %d keys", s.Ops, keys)
	}
	return err
}

// sequence counts.
type sequence struct{ next, step uint64 }

func (s *sequence) Fill(dst []uint64) {
	for i := range dst {
		dst[i] = s.next
		s.next += s.step
	}
}

// caller drives one connection.
type caller struct {
	load   *Load
	conn   net.Conn
	source draw.Source

	ops, hits uint64
	times     *hdrhistogram.Histogram
	keys      []uint64 // of the window, by id
	out, in   []byte
	begin     int // in in[begin:end] there are bytes that were not looked at
	end       int
	key       [KeySize]byte
	value     []byte
}

const (
	inSize   = 256 << 10 // more than a whole window of answers takes
	timesMax = int64(time.Minute)
)

func (c *caller) run(stop *atomic.Bool) error {
	c.keys = make([]uint64, c.load.Window)
	c.in = make([]byte, inSize)
	if c.load.Times != nil {
		c.times = hdrhistogram.New(1, timesMax, 3)
	}
	for (c.ops == 0 || !stop.Load()) && (c.load.Limit == 0 || c.ops < uint64(c.load.Limit)) {
		n := c.load.Window
		if c.load.Limit > 0 {
			n = min(n, c.load.Limit-int(c.ops))
		}
		if err := c.window(n); err != nil {
			return err
		}
	}
	return nil
}

// window sends n requests and takes their answers.
func (c *caller) window(n int) error {
	l := c.load
	c.source.Fill(c.keys[:n])
	c.out = c.out[:0]
	for id, k := range c.keys[:n] {
		key := AppendKey(c.key[:0], k)
		if l.Write {
			c.value = AppendValue(c.value[:0], k, l.ValueSize)
			c.out = l.Dialect.AppendPut(c.out, uint32(id), key, c.value)
		} else {
			c.out = l.Dialect.AppendGet(c.out, uint32(id), key)
		}
	}
	begin := time.Now()
	if _, err := c.conn.Write(c.out); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	var a Answer
	for got := 0; got < n; {
		size, err := l.Dialect.Take(c.in[c.begin:c.end], &a)
		if err != nil {
			return err
		}
		if size == 0 {
			if err := c.fill(); err != nil {
				return err
			}
			continue
		}
		c.begin += size
		if l.Dialect.Ordered() {
			a.ID = uint32(got)
		}
		if err := c.check(&a, n); err != nil {
			return err
		}
		got++
		if c.times != nil {
			// The value is in range, so recording cannot fail.
			_ = c.times.RecordValue(min(max(int64(time.Since(begin)), 1), timesMax))
		}
	}
	c.ops += uint64(n)
	return nil
}

// fill reads more answers.
func (c *caller) fill() error {
	if c.begin > 0 {
		c.end = copy(c.in, c.in[c.begin:c.end])
		c.begin = 0
	}
	if c.end == len(c.in) {
		return fmt.Errorf("an answer is longer than %d bytes", inSize)
	}
	n, err := c.conn.Read(c.in[c.end:])
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	c.end += n
	return nil
}

// check looks whether an answer is the right one.
func (c *caller) check(a *Answer, n int) error {
	if int(a.ID) >= n {
		return fmt.Errorf("%w: answer to request %d of %d", measure.ErrWrong, a.ID, n)
	}
	if c.load.Write {
		if !a.Found {
			return fmt.Errorf("%w: a put was not carried out", measure.ErrWrong)
		}
		return nil
	}
	if !a.Found {
		return nil
	}
	c.hits++
	key := AppendKey(c.key[:0], c.keys[a.ID])
	if len(a.Value) != c.load.ValueSize || !bytes.HasPrefix(a.Value, key) {
		return fmt.Errorf("%w: %s has %.40q", measure.ErrWrong, key, a.Value)
	}
	return nil
}
