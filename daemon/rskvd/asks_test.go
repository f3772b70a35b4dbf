package main

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"

	"rskv/ipc"
)

// asks is a connection that sends one request at a time, encoded by another
// library than the daemon's.
type asks struct {
	t    *testing.T
	conn net.Conn
	id   uint32
	buf  []byte
}

// send sends a request.
func (a *asks) send(method string, params ...any) {
	a.t.Helper()
	a.id++
	if params == nil {
		params = []any{}
	}
	b, err := msgpack.Marshal([]any{0, a.id, method, params})
	require.NoError(a.t, err)
	_, err = a.conn.Write(b)
	require.NoError(a.t, err)
}

// answer is the result of the request that was sent, or the error it was answered
// with.
func (a *asks) answer(method string) (any, error) {
	a.t.Helper()
	require.NoError(a.t, a.conn.SetReadDeadline(time.Now().Add(3*patience)))
	split, room := ipc.NewSplitter(ipc.MaxAnswer), make([]byte, 1<<20)
	for {
		n, refused := split.Next(a.buf)
		require.Nil(a.t, refused)
		if n > 0 {
			var r ipc.Response
			require.NoError(a.t, ipc.ParseResponse(a.buf[:n], &r))
			var parts []any
			require.NoError(a.t, msgpack.Unmarshal(a.buf[:n], &parts))
			a.buf = a.buf[n:]
			return parts[len(parts)-1], r.Err()
		}
		n, err := a.conn.Read(room)
		require.NoError(a.t, err, method)
		a.buf = append(a.buf, room[:n]...)
	}
}

// try asks, and may be refused.
func (a *asks) try(method string, params ...any) (any, error) {
	a.t.Helper()
	a.send(method, params...)
	return a.answer(method)
}

// ask asks, and must not be refused.
func (a *asks) ask(method string, params ...any) any {
	a.t.Helper()
	result, err := a.try(method, params...)
	require.NoError(a.t, err, method)
	return result
}
