package client

import (
	"fmt"
	"time"

	"rskv/ipc"
)

// WriteOption changes what a write does. Options are combined by naming several. One that the
// method does not have makes the daemon answer ErrBadRequest.
type WriteOption uint64

// The options of writes, and TTL.
const (
	// IfAbsent stores only if there is no such key. Put.
	IfAbsent WriteOption = 1 << iota
	// IfPresent stores only if there is one. Put.
	IfPresent
	// Sync has the write answered when it is on stable storage. All writes.
	Sync
	// Blind deletes without asking whether the key was there, and so without reading the disk.
	// Delete, MDelete.
	Blind

	expires      // a time to live is in the bits from ttlShift on
	badTTL       // TTL was given one that is out of range
	ttlShift = 8 // position of the time to live, in ms
	ttlMask  = ipc.MaxTTL << ttlShift
)

// TTL has the key be gone after d, rounded up to a millisecond: Put, CompareAndSwap, Add, MPut.
// Without it Put, CompareAndSwap and MPut clear an expiry that the key had, Add and Append keep it.
// d is more than 0 and at most ipc.MaxTTL ms.
func TTL(d time.Duration) WriteOption {
	ms := (d + time.Millisecond - 1) / time.Millisecond
	if d <= 0 {
		return badTTL
	}
	return expires | WriteOption(ms)<<ttlShift
}

// ms is the time to live.
func (o WriteOption) ms() uint64 { return uint64(o & ttlMask >> ttlShift) }

// merge combines options. Of IfAbsent and IfPresent together nothing good can come, nor of two times
// to live.
func merge(opts []WriteOption) (all WriteOption, err error) {
	for _, o := range opts {
		if all&o&expires != 0 {
			return 0, &Error{Code: ipc.CodeBadRequest, Message: "TTL is given twice"}
		}
		all |= o
	}
	switch {
	case all&(IfAbsent|IfPresent) == IfAbsent|IfPresent:
		return 0, &Error{Code: ipc.CodeBadRequest, Message: "IfAbsent and IfPresent exclude each other"}
	case all&badTTL != 0:
		return 0, errTTL
	}
	return all, nil
}

var errTTL = &Error{Code: ipc.CodeBadRequest, Message: "a time to live must be more than 0"}

// count adds to n, a method's parameters without options, the one for options if there are any.
func (o WriteOption) count(n int) int {
	if o != 0 {
		n++
	}
	return n
}

// append appends the map of options, if there are any.
func (o WriteOption) append(dst []byte) []byte {
	if o == 0 {
		return dst
	}
	n := 0
	for _, bit := range [...]WriteOption{IfAbsent | IfPresent, Sync, Blind, expires} {
		if o&bit != 0 {
			n++
		}
	}
	dst = ipc.AppendMapHeader(dst, n)
	if o&IfAbsent != 0 {
		dst = ipc.AppendStr(ipc.AppendStr(dst, "if"), "absent")
	}
	if o&IfPresent != 0 {
		dst = ipc.AppendStr(ipc.AppendStr(dst, "if"), "present")
	}
	if o&expires != 0 {
		dst = ipc.AppendUint(ipc.AppendStr(dst, "ttl"), o.ms())
	}
	if o&Sync != 0 {
		dst = ipc.AppendBool(ipc.AppendStr(dst, "sync"), true)
	}
	if o&Blind != 0 {
		dst = ipc.AppendBool(ipc.AppendStr(dst, "blind"), true)
	}
	return dst
}

// checkKey refuses here what the protocol has no room for; the daemon's own limits may be lower.
func checkKey(key []byte) error {
	if len(key) == 0 {
		return &Error{Code: ipc.CodeBadRequest, Message: "key is empty"}
	}
	if len(key) > ipc.MaxKey {
		return tooLarge(ipc.CodeKeyTooLarge, "key", len(key), ipc.MaxKey)
	}
	return nil
}

func checkValue(value []byte) error {
	if len(value) > ipc.MaxValue {
		return tooLarge(ipc.CodeValueTooLarge, "value", len(value), ipc.MaxValue)
	}
	return nil
}

func tooLarge(code ipc.Code, what string, n, limit int) error {
	return &Error{Code: code, Message: fmt.Sprintf("%s has %d bytes, the limit is %d", what, n, limit)}
}

// The functions below add one request each to the flight, or nothing if it is out of bounds.

// keyed adds a request whose only parameter is a key: get, exists, ttl.
func (f *flight) keyed(m ipc.Method, key []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	start := f.begin(m, 1)
	f.buf = ipc.AppendBin(f.buf, key)
	f.end(start, natureRead)
	return nil
}

// stored adds a request of a key and bytes: put, append.
func (f *flight) stored(m ipc.Method, key, value []byte, opts []WriteOption) error {
	o, err := merge(opts)
	if err != nil {
		return err
	}
	if err := checkKey(key); err != nil {
		return err
	}
	if err := checkValue(value); err != nil {
		return err
	}
	start := f.begin(m, o.count(2))
	f.buf = o.append(ipc.AppendBin(ipc.AppendBin(f.buf, key), value))
	f.end(start, natureWrite)
	return nil
}

func (f *flight) del(key []byte, opts []WriteOption) error {
	o, err := merge(opts)
	if err != nil {
		return err
	}
	if err := checkKey(key); err != nil {
		return err
	}
	start := f.begin(ipc.MethodDel, o.count(1))
	f.buf = o.append(ipc.AppendBin(f.buf, key))
	f.end(start, natureWrite)
	return nil
}

func (f *flight) cas(key, source, target []byte, opts []WriteOption) error {
	o, err := merge(opts)
	if err != nil {
		return err
	}
	if err := checkKey(key); err != nil {
		return err
	}
	if err := checkValue(source); err != nil {
		return err
	}
	if err := checkValue(target); err != nil {
		return err
	}
	start := f.begin(ipc.MethodCas, o.count(3))
	f.buf = o.append(appendOrNil(appendOrNil(ipc.AppendBin(f.buf, key), source), target))
	f.end(start, natureWrite)
	return nil
}

func appendOrNil(dst, b []byte) []byte {
	if b == nil {
		return ipc.AppendNil(dst)
	}
	return ipc.AppendBin(dst, b)
}

func (f *flight) add(key []byte, delta int64, opts []WriteOption) error {
	o, err := merge(opts)
	if err != nil {
		return err
	}
	if err := checkKey(key); err != nil {
		return err
	}
	start := f.begin(ipc.MethodAdd, o.count(2))
	f.buf = o.append(ipc.AppendInt(ipc.AppendBin(f.buf, key), delta))
	f.end(start, natureWrite)
	return nil
}

// expire adds a request for a time to live, 0 for none.
func (f *flight) expire(key []byte, d time.Duration, opts []WriteOption) error {
	o, err := merge(opts)
	if err != nil {
		return err
	}
	if err := checkKey(key); err != nil {
		return err
	}
	if d < 0 {
		return errTTL
	}
	start := f.begin(ipc.MethodExpire, o.count(2))
	f.buf = ipc.AppendBin(f.buf, key)
	if d == 0 {
		f.buf = ipc.AppendNil(f.buf)
	} else {
		f.buf = ipc.AppendUint(f.buf, TTL(d).ms())
	}
	f.buf = o.append(f.buf)
	f.end(start, natureWrite)
	return nil
}

// listed adds a request of many keys: mget, mdel.
func (f *flight) listed(m ipc.Method, keys [][]byte, opts []WriteOption) error {
	o, err := merge(opts)
	if err != nil {
		return err
	}
	for _, k := range keys {
		if err := checkKey(k); err != nil {
			return err
		}
	}
	start := f.begin(m, o.count(1))
	f.buf = ipc.AppendArrayHeader(f.buf, len(keys))
	for _, k := range keys {
		f.buf = ipc.AppendBin(f.buf, k)
	}
	f.buf = o.append(f.buf)
	if m == ipc.MethodMGet {
		return f.endChecked(start, natureRead)
	}
	return f.endChecked(start, natureWrite)
}

func (f *flight) mput(pairs []Pair, opts []WriteOption) error {
	o, err := merge(opts)
	if err != nil {
		return err
	}
	size := 0
	for _, p := range pairs {
		if err := checkKey(p.Key); err != nil {
			return err
		}
		if err := checkValue(p.Value); err != nil {
			return err
		}
		if size += len(p.Key) + len(p.Value); size > ipc.MaxRequest {
			return tooLarge(ipc.CodeRequestTooLarge, "mput", size, ipc.MaxRequest)
		}
	}
	start := f.begin(ipc.MethodMPut, o.count(1))
	f.buf = ipc.AppendArrayHeader(f.buf, len(pairs))
	for _, p := range pairs {
		f.buf = ipc.AppendArrayHeader(f.buf, 2)
		f.buf = ipc.AppendBin(ipc.AppendBin(f.buf, p.Key), p.Value)
	}
	f.buf = o.append(f.buf)
	return f.endChecked(start, natureWrite)
}

// endChecked is end for a request that may have become longer than any request may be: the daemon
// would close the connection over it.
func (f *flight) endChecked(start int, n nature) error {
	if size := len(f.buf) - start; size > ipc.MaxRequest {
		f.buf = f.buf[:start]
		return tooLarge(ipc.CodeRequestTooLarge, "request", size, ipc.MaxRequest)
	}
	f.end(start, n)
	return nil
}
