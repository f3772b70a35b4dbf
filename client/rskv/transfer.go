package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// How much of a source is under way at a time. Together they bound the memory a
// transfer takes, whatever the size of its source.
const (
	batchKeys  = 256      // keys in one batch
	batchBytes = 1 << 20  // bytes of keys and values after which a batch is sent
	windowMax  = 8        // batches sent and not yet answered
	flightMax  = 32 << 20 // bytes in them; a single batch may always go
	namedMax   = 20       // failures named on stderr; the rest is counted
)

// batch is some pairs on their way. The goroutine that reads the source owns it
// until it is passed on, then the one that handles answers.
type batch struct {
	pairs   []pair
	bytes   int64
	answers func() ([]answer, error) // waits; one answer a pair
}

// keys are those of the pairs.
func (b *batch) keys() [][]byte {
	keys := make([][]byte, len(b.pairs))
	for i, p := range b.pairs {
		keys[i] = p.key
	}
	return keys
}

// answer is what came back for one pair. value is set where it was asked for.
type answer struct {
	value   []byte
	expires time.Time // zero: never, or not asked for
	found   bool
	err     error
}

// transfer moves pairs of a source through start, in batches and in order, and
// hands every answer to handle.
//
//	source -> batches -> start (sends) -> at most windowMax waiting -> handle
type transfer struct {
	// start sends a batch without waiting for its answers.
	start func(ctx context.Context, b *batch) (answers func() ([]answer, error), err error)
	// handle judges one answer; an *itemError is counted, any other error ends
	// the transfer.
	handle func(p pair, a answer) error
	// failed is told of every item that failed, from one goroutine at a time.
	failed func(error)

	keys, bytes, failures atomic.Int64 // handled so far; read by the progress line

	mu     sync.Mutex // guards failed
	flight flight
}

// run ends when the source is at its end and every answer is in, or with the
// first error that concerns more than one item.
func (t *transfer) run(ctx context.Context, pairs source) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t.flight = flight{free: make(chan struct{}, 1)}
	sent := make(chan *batch, windowMax)
	go func() {
		defer close(sent)
		if err := t.send(ctx, pairs, sent); err != nil {
			cancel(err)
		}
	}()
	for b := range sent {
		// After an error, drain: the sender ends by the context.
		if ctx.Err() == nil {
			if err := t.finish(b); err != nil {
				cancel(err)
			}
		}
		t.flight.land(b.bytes)
	}
	return context.Cause(ctx)
}

// send reads the source into batches and starts them.
func (t *transfer) send(ctx context.Context, pairs source, sent chan<- *batch) error {
	b := &batch{}
	flush := func() error {
		if len(b.pairs) == 0 {
			return nil
		}
		if err := t.flight.take(ctx, b.bytes); err != nil {
			return err
		}
		answers, err := t.start(ctx, b)
		if err != nil {
			return err
		}
		b.answers = answers
		sent <- b // the receiver drains until it is closed
		b = &batch{}
		return nil
	}
	for p, err := range pairs {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			if err = t.item(err); err != nil {
				return err
			}
			continue
		}
		b.pairs = append(b.pairs, p)
		b.bytes += int64(len(p.key) + len(p.value))
		if len(b.pairs) >= batchKeys || b.bytes >= batchBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// finish waits for a batch and handles its answers.
func (t *transfer) finish(b *batch) error {
	answers, err := b.answers()
	if err != nil {
		return err
	}
	for i, p := range b.pairs {
		if err := t.handle(p, answers[i]); err != nil {
			if err = t.item(err); err != nil {
				return err
			}
			continue
		}
		t.keys.Add(1)
		t.bytes.Add(int64(len(p.key) + max(len(p.value), len(answers[i].value))))
	}
	return nil
}

// item counts and reports err if it concerns one item, else returns it.
func (t *transfer) item(err error) error {
	if errors.Is(err, errExpired) {
		return nil // who handles answers counts them
	}
	var one *itemError
	if !errors.As(err, &one) {
		return err
	}
	t.failures.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed(err)
	return nil
}

// flight counts the bytes of batches that are under way.
type flight struct {
	mu    sync.Mutex
	bytes int64         // guarded by mu
	free  chan struct{} // holds a token when something has landed
}

// take waits until n more bytes may go: below flightMax, or as the only ones.
func (f *flight) take(ctx context.Context, n int64) error {
	for {
		f.mu.Lock()
		if f.bytes == 0 || f.bytes+n <= flightMax {
			f.bytes += n
			f.mu.Unlock()
			return nil
		}
		f.mu.Unlock()
		select {
		case <-f.free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// land gives n bytes back.
func (f *flight) land(n int64) {
	f.mu.Lock()
	f.bytes -= n
	f.mu.Unlock()
	select {
	case f.free <- struct{}{}:
	default: // the waiter has a token already
	}
}

// tally is the result of a transfer as it is printed.
type tally struct {
	What    string  `json:"what"` // "imported", "verified", "exported"
	Keys    int64   `json:"keys"`
	Bytes   int64   `json:"bytes"` // of keys and values
	Seconds float64 `json:"seconds"`
	MBps    float64 `json:"mb_per_second"`   // 10^6 bytes
	KeysPS  float64 `json:"keys_per_second"` // successful ones
	Failed  int64   `json:"failed"`
	Expired int64   `json:"expired"` // before they could be moved
	Missing int64   `json:"missing"`
	Differ  int64   `json:"different"`
}

func (t *transfer) tally(what string, took time.Duration) tally {
	s := max(took.Seconds(), 1e-9)
	keys, bytes := t.keys.Load(), t.bytes.Load()
	return tally{
		What: what, Keys: keys, Bytes: bytes, Seconds: s, Failed: t.failures.Load(),
		MBps: float64(bytes) / 1e6 / s, KeysPS: float64(keys) / s,
	}
}

// String is one line for people.
func (t tally) String() string {
	s := fmt.Sprintf("%s %s keys, %s bytes in %.2f s (%.1f MB/s, %s keys/s)",
		t.What, grouped(t.Keys), grouped(t.Bytes), t.Seconds, t.MBps, grouped(int64(t.KeysPS)))
	for _, more := range []struct {
		n    int64
		what string
	}{{t.Expired, "expired"}, {t.Missing, "missing"}, {t.Differ, "different"}, {t.Failed, "failed"}} {
		if more.n > 0 {
			s += fmt.Sprintf(", %s %s", grouped(more.n), more.what)
		}
	}
	return s
}

// grouped writes n with a comma at every thousand.
func grouped(n int64) string {
	s := fmt.Sprint(n)
	first := 1
	if n < 0 {
		first = 2
	}
	for i := len(s) - 3; i >= first; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
