package client

import (
	"bytes"
	"context"
	"errors"
	"time"

	"rskv/ipc"
)

// Future is the answer to a request that was sent without waiting. Wait for it once, from one
// goroutine; one that nobody waits for costs its memory until the answer is there.
type Future[T any] struct {
	f    *flight
	err  error // it was never sent
	read func(*flight) (T, error)

	ended func(*flight, error) // the hook's; may be nil
}

// errSpent answers a second Wait.
var errSpent = errors.New("the answer was already taken")

// send submits a flight of one request. The context is for waiting until there is room for it, see
// WithMaxInFlight.
func send[T any](ctx context.Context, c *Client, f *flight, invalid error, read func(*flight) (T, error)) *Future[T] {
	var ended func(*flight, error)
	if invalid == nil {
		if c.opt.hooks.Call != nil {
			ended = c.opt.hooks.begin(ctx, f)
		}
		invalid = c.submit(ctx, f)
	}
	if invalid != nil {
		f.release()
		if ended != nil {
			ended(nil, invalid)
		}
		return &Future[T]{err: invalid}
	}
	return &Future[T]{f: f, read: read, ended: ended}
}

// Wait returns the answer, or the context's error: then the request may still take effect.
func (w *Future[T]) Wait(ctx context.Context) (T, error) {
	var none T
	if w.err != nil {
		return none, w.err
	}
	f := w.f
	w.f, w.err = nil, errSpent
	err := f.wait(ctx)
	if w.ended != nil {
		w.ended(f, err)
	}
	if err != nil {
		w.err = err
		return none, err
	}
	v, err := w.read(f)
	f.release()
	return v, err
}

func readValue(f *flight) ([]byte, error) {
	v, err := f.value(0)
	return bytes.Clone(v), err
}
func readBool(f *flight) (bool, error) { return f.bool(0) }
func readInt(f *flight) (int64, error) { return f.int(0) }

// GetAsync is Get without waiting. Its context is for the room to send, Wait's for the answer.
func (c *Client) GetAsync(ctx context.Context, key []byte) *Future[[]byte] {
	f := takeFlight()
	return send(ctx, c, f, f.keyed(ipc.MethodGet, key), readValue)
}

// PutAsync is Put without waiting.
func (c *Client) PutAsync(ctx context.Context, key, value []byte, opts ...WriteOption) *Future[bool] {
	f := takeFlight()
	return send(ctx, c, f, f.stored(ipc.MethodPut, key, value, opts), readBool)
}

// DeleteAsync is Delete without waiting.
func (c *Client) DeleteAsync(ctx context.Context, key []byte, opts ...WriteOption) *Future[bool] {
	f := takeFlight()
	return send(ctx, c, f, f.del(key, opts), readBool)
}

// ExpireAsync is Expire, or with d 0 Persist, without waiting.
func (c *Client) ExpireAsync(ctx context.Context, key []byte, d time.Duration, opts ...WriteOption) *Future[bool] {
	f := takeFlight()
	return send(ctx, c, f, f.expire(key, d, opts), readBool)
}

// AddAsync is Add without waiting.
func (c *Client) AddAsync(ctx context.Context, key []byte, delta int64, opts ...WriteOption) *Future[int64] {
	f := takeFlight()
	return send(ctx, c, f, f.add(key, delta, opts), readInt)
}

// AppendAsync is Append without waiting; its answer is the new length in bytes.
func (c *Client) AppendAsync(ctx context.Context, key, tail []byte, opts ...WriteOption) *Future[int64] {
	f := takeFlight()
	return send(ctx, c, f, f.stored(ipc.MethodAppend, key, tail, opts), readInt)
}

// CompareAndSwapAsync is CompareAndSwap without waiting.
func (c *Client) CompareAndSwapAsync(ctx context.Context, key, source, target []byte, opts ...WriteOption) *Future[bool] {
	f := takeFlight()
	return send(ctx, c, f, f.cas(key, source, target, opts), readBool)
}
