package ipc_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"rskv/ioring/iotest/seeds"
	"rskv/ipc"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
)

// What could go wrong: an encoder makes bytes that msgpack/v5 reads as something else, or longer ones
// than it makes.
func TestAppend_EqualsMsgpack(t *testing.T) {
	rng := seeds.Rand(t)
	encode := func(f func(e *msgpack.Encoder) error) []byte {
		var buf bytes.Buffer
		require.NoError(t, f(msgpack.NewEncoder(&buf)))
		return buf.Bytes()
	}
	ints := []int64{0, 1, -1, math.MaxInt64, math.MinInt64}
	for bit := range 63 {
		for _, d := range []int64{-1, 0, 1} {
			ints = append(ints, 1<<bit+d, -(1<<bit)+d)
		}
	}
	for range 1000 {
		ints = append(ints, int64(rng.Uint64())>>rng.IntN(64))
	}
	for _, v := range ints {
		require.Equal(t, encode(func(e *msgpack.Encoder) error { return e.EncodeInt(v) }), ipc.AppendInt(nil, v), "%d", v)
		require.Equal(t, encode(func(e *msgpack.Encoder) error { return e.EncodeUint(uint64(v)) }), ipc.AppendUint(nil, uint64(v)), "%d", uint64(v))
	}
	for _, n := range []int{0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536, 100_000} {
		b := randomBytes(rng, n)
		require.Equal(t, encode(func(e *msgpack.Encoder) error { return e.EncodeBytes(b) }), ipc.AppendBin(nil, b))
		require.Equal(t, encode(func(e *msgpack.Encoder) error { return e.EncodeString(string(b)) }), ipc.AppendStr(nil, string(b)))
		require.Equal(t, encode(func(e *msgpack.Encoder) error { return e.EncodeArrayLen(n) }), ipc.AppendArrayHeader(nil, n))
		require.Equal(t, encode(func(e *msgpack.Encoder) error { return e.EncodeMapLen(n) }), ipc.AppendMapHeader(nil, n))
	}
	require.Equal(t, encode(func(e *msgpack.Encoder) error { return e.EncodeFloat64(-1.5) }), ipc.AppendFloat(nil, -1.5))
	require.Equal(t, encode(func(e *msgpack.Encoder) error { return e.EncodeNil() }), ipc.AppendNil(nil))
	require.Equal(t, encode(func(e *msgpack.Encoder) error { return e.EncodeBool(true) }), ipc.AppendBool(nil, true))
	require.Equal(t, encode(func(e *msgpack.Encoder) error { return e.EncodeBool(false) }), ipc.AppendBool(nil, false))
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// What could go wrong: a value in an encoding that msgpack/v5 (or another library) chose is read as
// something else.
func TestReader_ReadsWhatMsgpackWrites(t *testing.T) {
	rng := seeds.Rand(t)
	var buf bytes.Buffer
	e := msgpack.NewEncoder(&buf)
	read := func(err error) *ipc.Reader {
		require.NoError(t, err)
		r := ipc.NewReader(bytes.Clone(buf.Bytes()))
		buf.Reset()
		return &r
	}
	for range 5000 {
		v := int64(rng.Uint64()) >> rng.IntN(64)
		for _, encode := range []func() error{
			func() error { return e.EncodeInt64(v) }, // always nine bytes
			func() error { return e.EncodeInt(v) },
			func() error { return e.EncodeInt32(int32(v)) },
			func() error { return e.EncodeInt16(int16(v)) },
			func() error { return e.EncodeInt8(int8(v)) },
		} {
			require.NoError(t, encode())
			want, err := msgpack.NewDecoder(bytes.NewReader(buf.Bytes())).DecodeInt64()
			got, rerr := read(err).Int()
			require.NoError(t, rerr)
			require.Equal(t, want, got)
		}
		u := rng.Uint64() >> rng.IntN(64)
		got, err := read(e.EncodeUint64(u)).Uint()
		require.NoError(t, err)
		require.Equal(t, u, got)
	}
	for _, n := range []int{0, 1, 31, 32, 255, 256, 65_535, 65_536} {
		b := randomBytes(rng, n)
		got, err := read(e.EncodeBytes(b)).Bytes()
		require.NoError(t, err)
		require.Equal(t, b, got)
		got, err = read(e.EncodeString(string(b))).Bytes()
		require.NoError(t, err)
		require.Equal(t, b, got)
	}
	f, err := read(e.EncodeFloat32(0.25)).Float()
	require.NoError(t, err)
	require.Equal(t, 0.25, f)
	f, err = read(e.EncodeFloat64(1e300)).Float()
	require.NoError(t, err)
	require.Equal(t, 1e300, f)
}

// What could go wrong: an integer beyond its type is cut instead of refused, or a read that failed
// has moved on.
func TestReader_Refuses(t *testing.T) {
	r := ipc.NewReader(ipc.AppendUint(nil, math.MaxInt64+1))
	_, err := r.Int()
	require.ErrorIs(t, err, ipc.ErrRange)
	v, err := r.Uint()
	require.NoError(t, err)
	require.EqualValues(t, uint64(math.MaxInt64+1), v)

	r = ipc.NewReader([]byte{0xff})
	_, err = r.Uint()
	require.ErrorIs(t, err, ipc.ErrRange)
	for what, read := range map[string]func() error{
		"bool":  func() error { _, err := r.Bool(); return err },
		"bytes": func() error { _, err := r.Bytes(); return err },
		"float": func() error { _, err := r.Float(); return err },
		"array": func() error { _, err := r.ArrayLen(); return err },
		"map":   func() error { _, err := r.MapLen(); return err },
	} {
		require.ErrorIs(t, read(), ipc.ErrType, what)
		require.Equal(t, ipc.KindInt, r.Kind())
	}
	require.False(t, r.TakeNil())
	for _, short := range [][]byte{
		{}, {0xc4}, {0xc4, 1}, {0xc5, 0}, {0xc6, 0xff, 0xff, 0xff, 0xff}, {0xa3, 'a'}, {0xcd, 1}, {0xd3}, {0xcb, 1},
		{0xca}, {0x91}, {0xdc, 0}, {0xdd, 0xff, 0xff, 0xff, 0xff}, {0x81, 1}, {0xde, 0, 1, 1}, {0xdf, 0xff, 0xff, 0xff, 0xff},
	} {
		r := ipc.NewReader(short)
		_, err1 := r.Bytes()
		_, err2 := r.Int()
		_, err3 := r.Float()
		_, err4 := r.ArrayLen()
		_, err5 := r.MapLen()
		require.Contains(t, []error{err1, err2, err3, err4, err5}, ipc.ErrShort, "% x", short)
		require.Equal(t, len(short), r.Len())
		require.ErrorIs(t, r.Skip(), ipc.ErrShort)
		require.Error(t, ipc.Validate(short))
	}
	require.ErrorIs(t, ipc.Validate([]byte{1, 2}), ipc.ErrTrailing)
	require.Error(t, ipc.Validate([]byte{0xc1}))
}

// What could go wrong: a hot path allocates, for every request of every connection.
func TestHotPaths_DoNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	key, value := []byte("k000000000012345"), bytes.Repeat([]byte("v"), 100)
	dst := make([]byte, 0, 4096)
	lim := ipc.DefaultLimits()
	split := ipc.NewSplitter(ipc.MaxRequest)
	var q ipc.Request
	var c ipc.Call
	var p ipc.Response
	requests := [][]byte{
		ipc.AppendGet(nil, 70_000, key),
		ipc.AppendPut(nil, 70_000, key, value),
		ipc.AppendBin(ipc.AppendRequestHeader(nil, 1, ipc.MethodDel, 1), key),
		ipc.AppendInt(ipc.AppendBin(ipc.AppendRequestHeader(nil, 1, ipc.MethodAdd, 2), key), -5),
		ipc.AppendBin(ipc.AppendBin(ipc.AppendArrayHeader(ipc.AppendRequestHeader(nil, 1, ipc.MethodMGet, 1), 2), key), key),
		ipc.AppendBool(ipc.AppendStr(ipc.AppendMapHeader(ipc.AppendBin(ipc.AppendBin(ipc.AppendRequestHeader(nil, 1, ipc.MethodPut, 3), key), value), 1), "sync"), true),
	}
	answers := [][]byte{
		ipc.AppendBinResult(nil, 70_000, value), ipc.AppendNilResult(nil, 1), ipc.AppendBoolResult(nil, 1, true),
		ipc.AppendIntResult(nil, 1, -70_000),
	}
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		dst = ipc.AppendGet(dst[:0], 70_000, key)
		dst = ipc.AppendPut(dst, 70_000, key, value)
		dst = ipc.AppendBinResult(dst, 70_000, value)
		dst = ipc.AppendErrorResponse(dst, 70_000, ipc.CodeBusy, "try again")
	}), "encoders")
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		for _, b := range requests {
			if n, err := split.Next(b); n != len(b) || err != nil {
				t.Fatal(n, err)
			}
			if err := ipc.ParseRequest(b, &q); err != nil {
				t.Fatal(err)
			}
			if err := ipc.ParseCall(&q, &lim, &c); err != nil {
				t.Fatal(err)
			}
		}
	}), "requests")
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		for _, b := range answers {
			if err := ipc.ParseResponse(b, &p); err != nil {
				t.Fatal(err)
			}
		}
	}), "answers")
}
