package ipc_test

import (
	"errors"
	"testing"

	"rskv/ipc"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
)

// What could go wrong: an answer in another library's encoding is refused, or its error lost.
func TestParseResponse(t *testing.T) {
	b, err := msgpack.Marshal(list{int64(1), int64(70_000), nil, "v"})
	require.NoError(t, err)
	var p ipc.Response
	require.NoError(t, ipc.ParseResponse(b, &p))
	require.Equal(t, ipc.TypeResponse, p.Type)
	require.EqualValues(t, 70_000, p.ID)
	require.NoError(t, p.Err())
	v, err := p.Result.Bytes()
	require.NoError(t, err)
	require.Equal(t, "v", string(v))

	require.NoError(t, ipc.ParseResponse(ipc.AppendErrorResponse(nil, 5, ipc.CodeDiskFull, "no room"), &p))
	require.ErrorIs(t, p.Err(), ipc.CodeDiskFull)
	require.ErrorIs(t, p.Err(), &ipc.Error{Code: ipc.CodeDiskFull})
	require.ErrorIs(t, p.Err(), &ipc.Error{Code: ipc.CodeDiskFull, Message: "no room"})
	require.NotErrorIs(t, p.Err(), &ipc.Error{Code: ipc.CodeDiskFull, Message: "other"})
	require.NotErrorIs(t, p.Err(), ipc.CodeIO)
	require.NotErrorIs(t, p.Err(), ipc.ErrAnyTooLarge)
	var e *ipc.Error
	require.True(t, errors.As(p.Err(), &e))

	require.NoError(t, ipc.ParseResponse(ipc.AppendBoolResult(nil, 6, true), &p))
	require.NoError(t, p.Err(), "the last answer's error")

	require.NoError(t, ipc.ParseResponse(ipc.AppendDurableNotification(nil, 1<<40), &p))
	require.Equal(t, ipc.TypeNotification, p.Type)
	require.Equal(t, ipc.NotifyDurable, string(p.Method))

	for _, bad := range []any{
		list{0, 1, "get", list{}}, list{1, 1, nil}, list{1, -1, nil, nil}, list{1, int64(1) << 32, nil, nil},
		list{1, 1, "Busy", nil}, list{1, 1, list{"Busy"}, nil}, list{1, 1, list{"Busy", 1}, nil},
		list{1, 1, list{1, "x"}, nil}, list{2, "durable", 1}, list{2, 1, list{}}, list{"1", 1, nil, nil}, "text",
	} {
		b, err := msgpack.Marshal(bad)
		require.NoError(t, err)
		require.ErrorIs(t, ipc.ParseResponse(b, &p), ipc.ErrNotResponse, "%v", bad)
	}
}

// What could go wrong: hello does not come back as it was sent, or a newer daemon's cannot be read.
func TestHello(t *testing.T) {
	h := ipc.Hello{
		Server: "rskvd", Version: "1.2.3", Protocol: 1, Session: [16]byte{9, 8}, Applied: 1 << 40, Durable: 7,
		Role: ipc.ClassWrite, Limits: ipc.DefaultLimits(), Refused: []ipc.Refused{{3, ipc.CodeBusy}, {5, "New"}},
	}
	h.Limits.Value = 1000
	b := ipc.AppendHello(nil, &h)
	require.NoError(t, ipc.Validate(b))
	r := ipc.NewReader(b)
	got, err := ipc.ReadHello(&r)
	require.NoError(t, err)
	require.Equal(t, h, got)

	newer, err := msgpack.Marshal(dict{"server": "rskvd", "weather": dict{"a": list{1, 2}}, "limits": dict{"key": 10, "legs": list{}}})
	require.NoError(t, err)
	r = ipc.NewReader(newer)
	got, err = ipc.ReadHello(&r)
	require.NoError(t, err)
	require.Equal(t, ipc.Hello{Server: "rskvd", Limits: ipc.Limits{Key: 10}}, got)

	for _, bad := range []any{
		1, dict{"server": 1}, dict{"session": "short"}, dict{"role": "king"}, dict{"limits": 1},
		dict{"limits": dict{"key": "x"}}, dict{"refused": list{1}}, dict{"refused": list{list{1}}}, map[int]int{1: 1},
	} {
		b, err := msgpack.Marshal(bad)
		require.NoError(t, err)
		r := ipc.NewReader(b)
		_, err = ipc.ReadHello(&r)
		require.Error(t, err, "%v", bad)
	}
}

// What could go wrong: a limit above the protocol's, or of nothing, is configured.
func TestLimits_Validate(t *testing.T) {
	require.NoError(t, ipc.DefaultLimits().Validate())
	l := ipc.DefaultLimits()
	l.Key++
	l.Queued = 0
	require.EqualError(t, l.Validate(), "limit key is 65536, must be 1..65535; limit queued is 0, must be 1..16777216")
}

// changeParams encodes a change and returns the params of its notification.
func changeParams(t testing.TB, c ipc.Change) []byte {
	b := ipc.AppendPutChange(nil, c.Address, c.Key, c.Value)
	if c.Deleted {
		b = ipc.AppendDeleteChange(nil, c.Address, c.Key)
	}
	var p ipc.Response
	require.NoError(t, ipc.ParseResponse(b, &p))
	require.Equal(t, ipc.NotifyChange, string(p.Method))
	raw, err := p.Result.Raw()
	require.NoError(t, err)
	return raw
}

// What could go wrong: a change is read as another, or what is none as one.
func TestReadChange(t *testing.T) {
	for _, c := range []ipc.Change{
		{Address: 1 << 50, Key: []byte("k"), Value: []byte{}}, {Key: []byte("k"), Value: []byte("v")}, {Address: 16, Deleted: true, Key: []byte("k")},
	} {
		r := ipc.NewReader(changeParams(t, c))
		got, err := ipc.ReadChange(&r)
		require.NoError(t, err)
		require.Equal(t, c, got)
	}
	for _, bad := range []any{
		nil, list{}, list{1, "put", "k"}, list{1, "put", "k", nil}, list{1, "del", "k", "v"}, list{"1", "del", "k", nil},
		list{1, "move", "k", "v"}, list{1, 2, "k", "v"}, list{1, "put", 3, "v"}, list{1, "put", "k", "v", 5},
	} {
		b, err := msgpack.Marshal(bad)
		require.NoError(t, err)
		r := ipc.NewReader(b)
		_, err = ipc.ReadChange(&r)
		require.Error(t, err, "%v", bad)
		r = ipc.NewReader(b)
		_, err = ipc.ReadPlace(&r)
		require.Error(t, err, "%v", bad)
	}
}

// FuzzResponse looks for a message that makes the client's parser panic.
func FuzzResponse(f *testing.F) {
	for _, e := range examples(f) {
		f.Add(e.bytes)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var p ipc.Response
		if ipc.ParseResponse(b, &p) != nil {
			return
		}
		_ = p.Err()
		r := p.Result
		if c, err := ipc.ReadChange(&r); err == nil {
			again := ipc.NewReader(changeParams(t, c))
			got, err := ipc.ReadChange(&again)
			require.NoError(t, err)
			require.Equal(t, c, got)
		}
		r = p.Result
		_, _ = ipc.ReadPlace(&r)
		r = p.Result
		if h, err := ipc.ReadHello(&r); err == nil {
			again := ipc.NewReader(ipc.AppendHello(nil, &h))
			got, err := ipc.ReadHello(&again)
			require.NoError(t, err)
			require.Equal(t, h.Session, got.Session)
		}
	})
}
