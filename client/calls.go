package client

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"rskv/ipc"
)

// Pair is a key and its value.
type Pair struct{ Key, Value []byte }

// fly submits f and waits for its answers. With an error f is gone: either it was never in flight,
// or it was given up.
func (c *Client) fly(ctx context.Context, f *flight) error {
	if c.opt.hooks.Call != nil {
		if ended := c.opt.hooks.begin(ctx, f); ended != nil {
			err := c.carry(ctx, f)
			ended(f, err)
			return err
		}
	}
	return c.carry(ctx, f)
}

// carry is fly without hooks.
func (c *Client) carry(ctx context.Context, f *flight) error {
	f.waits = true
	if err := c.submit(ctx, f); err != nil {
		f.release()
		return err
	}
	if f.leads {
		c.lead(ctx, f)
	}
	return f.wait(ctx)
}

// Get returns the value of key, the caller's to keep, or ErrNotFound.
func (c *Client) Get(ctx context.Context, key []byte) ([]byte, error) {
	f := takeFlight()
	if err := f.keyed(ipc.MethodGet, key); err != nil {
		f.release()
		return nil, err
	}
	if err := c.fly(ctx, f); err != nil {
		return nil, err
	}
	v, err := f.value(0)
	return f.own(v), err
}

// own returns b, which aliases the arena of a landed flight, as the caller's, and releases f.
func (f *flight) own(b []byte) []byte {
	if len(b) > keptBytes {
		f.arena = nil // too large to keep: hand it over instead of copying it
	} else {
		b = bytes.Clone(b)
	}
	f.release()
	return b
}

// GetInto appends the value of key to dst and returns the result, or dst and ErrNotFound.
func (c *Client) GetInto(ctx context.Context, dst, key []byte) ([]byte, error) {
	f := takeFlight()
	if err := f.keyed(ipc.MethodGet, key); err != nil {
		f.release()
		return dst, err
	}
	if err := c.fly(ctx, f); err != nil {
		return dst, err
	}
	v, err := f.value(0)
	dst = append(dst, v...)
	f.release()
	return dst, err
}

// Exists reports whether there is such a key.
func (c *Client) Exists(ctx context.Context, key []byte) (bool, error) {
	f := takeFlight()
	return c.flyBool(ctx, f, f.keyed(ipc.MethodExists, key))
}

// Put stores value under key and reports whether it did: always, unless IfAbsent or IfPresent was
// given and not met.
func (c *Client) Put(ctx context.Context, key, value []byte, opts ...WriteOption) (bool, error) {
	f := takeFlight()
	return c.flyBool(ctx, f, f.stored(ipc.MethodPut, key, value, opts))
}

// Delete removes key and reports whether it was there; with Blind it does not look, and reports
// false.
func (c *Client) Delete(ctx context.Context, key []byte, opts ...WriteOption) (bool, error) {
	f := takeFlight()
	return c.flyBool(ctx, f, f.del(key, opts))
}

// CompareAndSwap stores target under key if its value is source, and reports whether it was. A nil
// source means that there must be no such key, a nil target that it is deleted; an empty value is
// not nil.
func (c *Client) CompareAndSwap(ctx context.Context, key, source, target []byte, opts ...WriteOption) (bool, error) {
	f := takeFlight()
	return c.flyBool(ctx, f, f.cas(key, source, target, opts))
}

// Add adds delta to the counter under key and returns the sum. A key that is not there counts as 0;
// a value that is no counter gives ErrNotInteger, a sum beyond int64 ErrOverflow.
func (c *Client) Add(ctx context.Context, key []byte, delta int64, opts ...WriteOption) (int64, error) {
	f := takeFlight()
	return c.flyInt(ctx, f, f.add(key, delta, opts))
}

// Append appends tail to the value of key, which may be absent, and returns the new length in bytes.
func (c *Client) Append(ctx context.Context, key, tail []byte, opts ...WriteOption) (int, error) {
	f := takeFlight()
	n, err := c.flyInt(ctx, f, f.stored(ipc.MethodAppend, key, tail, opts))
	return int(n), err
}

// NoExpiry is what TTL returns of a key that has no expiry.
const NoExpiry time.Duration = -1

// TTL returns how long key has left, to the millisecond, NoExpiry if it has no expiry, or
// ErrNotFound.
func (c *Client) TTL(ctx context.Context, key []byte) (time.Duration, error) {
	f := takeFlight()
	if err := f.keyed(ipc.MethodTTL, key); err != nil {
		f.release()
		return 0, err
	}
	if err := c.fly(ctx, f); err != nil {
		return 0, err
	}
	left, err := f.ttl(0)
	f.release()
	return left, err
}

// Expire has key be gone after d, rounded up to a millisecond, and reports whether it was there. d
// is more than 0. Of the options it has Sync.
func (c *Client) Expire(ctx context.Context, key []byte, d time.Duration, opts ...WriteOption) (bool, error) {
	f := takeFlight()
	if d <= 0 {
		return c.flyBool(ctx, f, errTTL)
	}
	return c.flyBool(ctx, f, f.expire(key, d, opts))
}

// Persist takes the expiry of key away and reports whether key was there. Of the options it has Sync.
func (c *Client) Persist(ctx context.Context, key []byte, opts ...WriteOption) (bool, error) {
	f := takeFlight()
	return c.flyBool(ctx, f, f.expire(key, 0, opts))
}

// MGet returns the values of keys in their order, nil for a key that is not there. They share one
// piece of memory, the caller's to keep.
func (c *Client) MGet(ctx context.Context, keys [][]byte) ([][]byte, error) {
	f := takeFlight()
	if err := f.listed(ipc.MethodMGet, keys, nil); err != nil {
		f.release()
		return nil, err
	}
	if err := c.fly(ctx, f); err != nil {
		return nil, err
	}
	r, err := f.raw(0, ipc.KindArray)
	if err != nil {
		f.release()
		return nil, err
	}
	f.arena = nil // the values alias it
	f.release()
	return readValues(&r, len(keys))
}

// readValues takes an array of count byte strings and nils.
func readValues(r *ipc.Reader, count int) ([][]byte, error) {
	n, err := r.ArrayLen()
	if err != nil || n != count {
		return nil, fmt.Errorf("%w: %d values for %d keys", ErrProtocol, n, count)
	}
	values := make([][]byte, n)
	for i := range values {
		if r.TakeNil() {
			continue
		}
		if values[i], err = r.Bytes(); err != nil {
			return nil, ErrProtocol
		}
	}
	return values, nil
}

// MPut stores pairs in their order and returns how many were stored. It is not a transaction: each
// takes effect by itself.
func (c *Client) MPut(ctx context.Context, pairs []Pair, opts ...WriteOption) (int, error) {
	f := takeFlight()
	n, err := c.flyInt(ctx, f, f.mput(pairs, opts))
	return int(n), err
}

// MDelete removes keys and returns how many were there; with Blind it does not look, and returns 0.
func (c *Client) MDelete(ctx context.Context, keys [][]byte, opts ...WriteOption) (int, error) {
	f := takeFlight()
	n, err := c.flyInt(ctx, f, f.listed(ipc.MethodMDel, keys, opts))
	return int(n), err
}

// Len returns the number of keys from counters, which may be slightly off while keys are on disk.
func (c *Client) Len(ctx context.Context) (int64, error) {
	f := takeFlight()
	f.end(f.begin(ipc.MethodLen, 0), natureRead)
	return c.flyInt(ctx, f, nil)
}

// LenExact returns the number of keys as a scan of the store finds it.
func (c *Client) LenExact(ctx context.Context) (int64, error) {
	f := takeFlight()
	start := f.begin(ipc.MethodLen, 1)
	f.buf = ipc.AppendBool(ipc.AppendStr(ipc.AppendMapHeader(f.buf, 1), "exact"), true)
	f.end(start, natureRead)
	return c.flyInt(ctx, f, nil)
}

// Ping asks for a sign of life.
func (c *Client) Ping(ctx context.Context) error {
	f := takeFlight()
	f.end(f.begin(ipc.MethodPing, 0), natureRead)
	if err := c.fly(ctx, f); err != nil {
		return err
	}
	v, err := f.bytes(0)
	if err == nil && string(v) != "pong" {
		err = ErrProtocol
	}
	f.release()
	return err
}

// Hello tells the daemon this client's name, at most ipc.MaxClientName bytes, and returns what the
// daemon says of itself. It starts a session, which numbers this connection's writes: say it once,
// before the first write. A connection that is dialled again has no session. A Client made
// WithSession has said hello by itself: it returns the last answer it got, without asking.
func (c *Client) Hello(ctx context.Context, name string) (ipc.Hello, error) {
	if c.opt.session {
		return c.lastHello(), nil
	}
	f := takeFlight()
	start := f.begin(ipc.MethodHello, 1)
	f.buf = ipc.AppendStr(ipc.AppendStr(ipc.AppendMapHeader(f.buf, 2), "client"), name)
	f.buf = ipc.AppendUint(ipc.AppendStr(f.buf, "protocol"), ipc.ProtocolVersion)
	f.end(start, natureOnce)
	if err := c.fly(ctx, f); err != nil {
		return ipc.Hello{}, err
	}
	defer f.release()
	r, err := f.raw(0, ipc.KindMap)
	if err != nil {
		return ipc.Hello{}, err
	}
	h, err := ipc.ReadHello(&r)
	if err != nil {
		return h, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return h, nil
}

// Sync returns when every earlier write of this connection is on stable storage, with the highest
// number of the session that is. With a session it holds for every earlier write of the Client, and a lost
// connection does not end it.
func (c *Client) Sync(ctx context.Context) (durable uint64, err error) {
	return c.syncAsync(ctx).Wait(ctx)
}

// syncAsync is Sync without waiting.
func (c *Client) syncAsync(ctx context.Context) *Future[uint64] {
	f := takeFlight()
	f.end(f.begin(ipc.MethodSync, 0), natureSync)
	return send(ctx, c, f, nil, func(f *flight) (uint64, error) {
		m, err := f.names()
		return number(m, "durable"), err
	})
}

// Stats returns the daemon's counters. Numbers are int64, uint64 or float64, groups are maps.
func (c *Client) Stats(ctx context.Context) (map[string]any, error) {
	f := takeFlight()
	f.end(f.begin(ipc.MethodStats, 0), natureRead)
	return c.flyMap(ctx, f)
}

// Config returns the settings in force.
func (c *Client) Config(ctx context.Context) (map[string]any, error) {
	f := takeFlight()
	f.end(f.begin(ipc.MethodConfig, 0), natureRead)
	return c.flyMap(ctx, f)
}

// SetConfig changes settings, whose values are text in the form of the configuration file, and
// returns the settings then in force. It is for administrators.
func (c *Client) SetConfig(ctx context.Context, settings map[string]string) (map[string]any, error) {
	f := takeFlight()
	start := f.begin(ipc.MethodConfig, 1)
	f.buf = ipc.AppendStr(ipc.AppendMapHeader(f.buf, 1), "set")
	f.buf = ipc.AppendMapHeader(f.buf, len(settings))
	for name, value := range settings {
		f.buf = ipc.AppendStr(ipc.AppendStr(f.buf, name), value)
	}
	f.end(start, natureOnce)
	return c.flyMap(ctx, f)
}

// CheckpointOptions say what checkpoint to take; the zero value is a full one.
type CheckpointOptions struct {
	Kind   ipc.CheckpointKind
	Cookie []byte // kept with the checkpoint, at most ipc.MaxCookie bytes
}

// Checkpoint is a checkpoint on stable storage.
type Checkpoint struct {
	Version uint64        // counts the checkpoints of a store
	Durable uint64        // the session's highest number that is in it
	Bytes   uint64        // written for it
	Took    time.Duration // to the millisecond
}

// Checkpoint takes a checkpoint and returns when it is on stable storage. It is for administrators.
func (c *Client) Checkpoint(ctx context.Context, o CheckpointOptions) (Checkpoint, error) {
	f := takeFlight()
	start := f.begin(ipc.MethodCheckpoint, 1)
	n := 1
	if o.Cookie != nil {
		n++
	}
	f.buf = ipc.AppendStr(ipc.AppendStr(ipc.AppendMapHeader(f.buf, n), "kind"), o.Kind.String())
	if o.Cookie != nil {
		f.buf = ipc.AppendBin(ipc.AppendStr(f.buf, "cookie"), o.Cookie)
	}
	f.end(start, natureDurable)
	m, err := c.flyMap(ctx, f)
	if err != nil {
		return Checkpoint{}, err
	}
	return Checkpoint{
		Version: number(m, "version"), Durable: number(m, "durable"), Bytes: number(m, "bytes"),
		Took: time.Duration(number(m, "ms")) * time.Millisecond,
	}, nil
}

// flyBool waits for a flight of one request whose answer is a bool. invalid is why the request could
// not be made, if it could not.
func (c *Client) flyBool(ctx context.Context, f *flight, invalid error) (bool, error) {
	if invalid != nil {
		f.release()
		return false, invalid
	}
	if err := c.fly(ctx, f); err != nil {
		return false, err
	}
	v, err := f.bool(0)
	f.release()
	return v, err
}

// flyInt is flyBool for an integer.
func (c *Client) flyInt(ctx context.Context, f *flight, invalid error) (int64, error) {
	if invalid != nil {
		f.release()
		return 0, invalid
	}
	if err := c.fly(ctx, f); err != nil {
		return 0, err
	}
	v, err := f.int(0)
	f.release()
	return v, err
}
