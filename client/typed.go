package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/vmihailenco/msgpack/v5"
)

// Codec turns a T into bytes and back. Equal values must give equal bytes if they are to be compared
// by Typed.CompareAndSwap. A Codec may be used by many goroutines at once.
type Codec[T any] interface {
	// Encode returns v as bytes, which are not nil.
	Encode(v T) ([]byte, error)
	// Decode returns the value that b holds, without keeping b.
	Decode(b []byte) (T, error)
}

// MsgPack returns the codec of msgpack/v5: structs as maps of their fields' names. Maps are
// sorted, and so fit to be compared, if they are map[string]string, map[string]bool or
// map[string]any. Bytes from the store are checked before that library sees them, so that a damaged or hostile
// value gives an error and not gigabytes.
func MsgPack[T any]() Codec[T] { return msgPack[T]{} }

type msgPack[T any] struct{}

func (msgPack[T]) Encode(v T) ([]byte, error) {
	var buf bytes.Buffer
	enc := msgpack.GetEncoder()
	defer msgpack.PutEncoder(enc)
	enc.Reset(&buf)
	enc.SetSortMapKeys(true)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func (msgPack[T]) Decode(b []byte) (T, error) {
	var v T
	err := unmarshal(b, &v)
	return v, err
}

// JSON returns the codec of encoding/json, for values that other programs are to read as they stand.
func JSON[T any]() Codec[T] { return jsonCodec[T]{} }

type jsonCodec[T any] struct{}

func (jsonCodec[T]) Encode(v T) ([]byte, error) { return json.Marshal(v) }

func (jsonCodec[T]) Decode(b []byte) (T, error) {
	var v T
	err := json.Unmarshal(b, &v)
	return v, err
}

// Typed is a Client for values of one type.
type Typed[T any] struct {
	c     *Client
	codec Codec[T]
}

// NewTyped returns a view of c whose values are Ts.
func NewTyped[T any](c *Client, codec Codec[T]) *Typed[T] { return &Typed[T]{c, codec} }

// Get returns the value of key, or ErrNotFound.
func (t *Typed[T]) Get(ctx context.Context, key []byte) (T, error) {
	b, err := t.c.Get(ctx, key)
	if err != nil {
		var none T
		return none, err
	}
	return t.codec.Decode(b)
}

// Put stores v under key; see Client.Put.
func (t *Typed[T]) Put(ctx context.Context, key []byte, v T, opts ...WriteOption) (bool, error) {
	b, err := t.codec.Encode(v)
	if err != nil {
		return false, err
	}
	return t.c.Put(ctx, key, b, opts...)
}

// CompareAndSwap stores *target under key if its value is *source; see Client.CompareAndSwap, nil
// means the same here.
func (t *Typed[T]) CompareAndSwap(ctx context.Context, key []byte, source, target *T, opts ...WriteOption) (bool, error) {
	old, err := t.encode(source)
	if err != nil {
		return false, err
	}
	next, err := t.encode(target)
	if err != nil {
		return false, err
	}
	return t.c.CompareAndSwap(ctx, key, old, next, opts...)
}

func (t *Typed[T]) encode(v *T) ([]byte, error) {
	if v == nil {
		return nil, nil
	}
	return t.codec.Encode(*v)
}

// Update replaces the value of key by what change makes of it, and returns that. It is change's to say
// what becomes of a key that is not there, with found false and v the zero value; an error of change
// ends Update and leaves the key as it is. If the value has changed meanwhile, change is called again
// with the new one, until the context ends: it must have no effect but its result. The bytes that were
// read are what is compared, so any Codec will do.
func (t *Typed[T]) Update(ctx context.Context, key []byte, change func(v T, found bool) (T, error), opts ...WriteOption) (T, error) {
	var none T
	for {
		old, err := t.c.Get(ctx, key)
		found := err == nil
		if !found && !errors.Is(err, ErrNotFound) {
			return none, err
		}
		v := none
		if found {
			if v, err = t.codec.Decode(old); err != nil {
				return none, err
			}
		}
		if v, err = change(v, found); err != nil {
			return none, err
		}
		b, err := t.codec.Encode(v)
		if err != nil {
			return none, err
		}
		swapped, err := t.c.CompareAndSwap(ctx, key, old, b, opts...)
		if err != nil {
			return none, err
		}
		if swapped {
			return v, nil
		}
	}
}

// Entry is a key and its value.
type Entry[T any] struct {
	Key   []byte
	Value T
}

// Scan is Client.Scan with decoded values. A value that cannot be decoded comes as an error with its
// key, and the scan goes on; ScanOptions.KeysOnly leaves the values zero.
func (t *Typed[T]) Scan(ctx context.Context, opt ScanOptions) iter.Seq2[Entry[T], error] {
	return func(yield func(Entry[T], error) bool) {
		for p, err := range t.c.Scan(ctx, opt) {
			e := Entry[T]{Key: p.Key}
			if err == nil && !opt.KeysOnly {
				if e.Value, err = t.codec.Decode(p.Value); err != nil {
					err = fmt.Errorf("value of %q: %w", p.Key, err)
				}
			}
			if !yield(e, err) {
				return
			}
		}
	}
}
