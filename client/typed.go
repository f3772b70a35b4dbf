package client

import (
	"bytes"
	"context"

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
