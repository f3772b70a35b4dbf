package client

import (
	"context"
	"time"

	"rskv/ipc"
)

// Batch is a list of requests that are sent in one write and waited for once: the fastest way to do
// many things.
//
//	b := c.NewBatch()
//	for _, key := range keys {
//		b.Get(key)
//	}
//	if err := b.Do(ctx); err != nil { ... }
//	for i := range keys {
//		value, err := b.Value(i)
//	}
//	b.Reset()
//
// Each request takes effect and fails by itself. Requests to one key take effect in their order. A
// Batch belongs to one goroutine; it keeps its memory from use to use.
type Batch struct {
	c    *Client
	f    *flight // the caller's, but while Do runs
	done bool    // answers are there
	err  error   // the first request that could not be added
}

// NewBatch returns an empty Batch.
func (c *Client) NewBatch() *Batch { return &Batch{c: c, f: newFlight()} }

// Len returns the number of requests.
func (b *Batch) Len() int { return len(b.f.ops) }

// Reset empties the batch. What Value returned is no longer valid.
func (b *Batch) Reset() {
	b.f.reset()
	b.done, b.err = false, nil
}

// fill makes the batch ready for one more request: after Do, the next round begins.
func (b *Batch) fill() *flight {
	if b.done {
		b.Reset()
	}
	return b.f
}

// added notes the outcome of adding a request and returns its index.
func (b *Batch) added(err error) int {
	if err != nil && b.err == nil {
		b.err = err
	}
	return len(b.f.ops) - 1
}

// Get adds a get; its answer is Value's. Like all that follow it returns the request's index; one
// that cannot be sent makes Do fail before anything is sent.
func (b *Batch) Get(key []byte) int { return b.added(b.fill().keyed(ipc.MethodGet, key)) }

// Exists adds an exists; its answer is Bool's.
func (b *Batch) Exists(key []byte) int { return b.added(b.fill().keyed(ipc.MethodExists, key)) }

// Put adds a put; its answer is Bool's.
func (b *Batch) Put(key, value []byte, opts ...WriteOption) int {
	return b.added(b.fill().stored(ipc.MethodPut, key, value, opts))
}

// Delete adds a del; its answer is Bool's.
func (b *Batch) Delete(key []byte, opts ...WriteOption) int { return b.added(b.fill().del(key, opts)) }

// CompareAndSwap adds a cas; its answer is Bool's.
func (b *Batch) CompareAndSwap(key, source, target []byte, opts ...WriteOption) int {
	return b.added(b.fill().cas(key, source, target, opts))
}

// Add adds an add; its answer is Int's.
func (b *Batch) Add(key []byte, delta int64, opts ...WriteOption) int {
	return b.added(b.fill().add(key, delta, opts))
}

// Append adds an append; its answer is Int's, the new length.
func (b *Batch) Append(key, tail []byte, opts ...WriteOption) int {
	return b.added(b.fill().stored(ipc.MethodAppend, key, tail, opts))
}

// TTL adds a ttl; its answer is Left's.
func (b *Batch) TTL(key []byte) int { return b.added(b.fill().keyed(ipc.MethodTTL, key)) }

// Expire adds an expire; its answer is Bool's. See Client.Expire; with d 0 it is Client.Persist.
func (b *Batch) Expire(key []byte, d time.Duration, opts ...WriteOption) int {
	return b.added(b.fill().expire(key, d, opts))
}

// Do sends the requests and returns when all are answered, also with errors of their own: those are
// Err's. Its error says that nothing was sent, or that the context ended; then the batch is empty,
// and what was sent may still take effect.
func (b *Batch) Do(ctx context.Context) error {
	if b.done {
		b.Reset()
	}
	if b.err != nil || len(b.f.ops) == 0 {
		err := b.err
		b.Reset()
		return err
	}
	var ended func(*flight, error)
	if b.c.opt.hooks.Call != nil {
		ended = b.c.opt.hooks.begin(ctx, b.f)
	}
	err := b.carry(ctx)
	if ended != nil {
		ended(b.f, err)
	}
	return err
}

func (b *Batch) carry(ctx context.Context) error {
	if err := b.c.submit(ctx, b.f); err != nil {
		b.Reset()
		return err
	}
	if err := b.f.wait(ctx); err != nil {
		b.f = newFlight() // the other one belongs to who reads for good
		return err
	}
	b.done = true
	return nil
}

// Value returns the value request i got, or its error, ErrNotFound if there is no such key. The
// bytes are the batch's, valid until it is filled or reset.
func (b *Batch) Value(i int) ([]byte, error) { return b.f.value(i) }

// Bool returns what request i answered: whether it stored, swapped, or found the key.
func (b *Batch) Bool(i int) (bool, error) { return b.f.bool(i) }

// Int returns the number request i answered.
func (b *Batch) Int(i int) (int64, error) { return b.f.int(i) }

// Left returns how long the key of the ttl request i has left, as Client.TTL does.
func (b *Batch) Left(i int) (time.Duration, error) { return b.f.ttl(i) }

// Err returns the error request i was answered with. A get of a key that is not there has none.
func (b *Batch) Err(i int) error { return b.f.answers[i].err }
