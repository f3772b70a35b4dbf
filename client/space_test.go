package client_test

import (
	"net"
	"testing"
	"time"

	"rskv/client"
	"rskv/ipc"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
)

// What could go wrong: a number of an answer lands in another field, or what is asked for is not what
// the caller said.
func TestCompactAndTasks(t *testing.T) {
	s := newFakeServer(t)
	var asked []ipc.Call
	s.hook = func(_ *fakeServer, conn net.Conn, q *ipc.Request) bool {
		lim := ipc.DefaultLimits()
		var c ipc.Call
		require.Nil(t, ipc.ParseCall(q, &lim, &c))
		c.Name = append([]byte(nil), c.Name...)
		asked = append(asked, c)
		var answer any = true
		switch {
		case c.Method == ipc.MethodCompact:
			answer = map[string]any{"begin": 1 << 40, "scanned": 2, "copied": 3, "freed": 4, "ms": 5}
		case c.Action == ipc.ActionGet:
			answer = []any{map[string]any{"name": "compact", "stopped": true, "fixed": false, "runs": 7, "last": 1000, "us": 8, "error": "e", "next": "n"}}
		}
		text, err := msgpack.Marshal(answer)
		require.NoError(t, err)
		_, _ = conn.Write(append(ipc.AppendResultHeader(nil, q.ID), text...))
		return true
	}
	c, ctx := dialFake(t, s), within(t, time.Minute)
	for _, until := range []int64{0, 1 << 41} {
		res, err := c.Compact(ctx, until)
		require.NoError(t, err)
		require.Equal(t, client.Compaction{Begin: 1 << 40, Scanned: 2, Copied: 3, Freed: 4, Took: 5 * time.Millisecond}, res)
	}
	list, err := c.Tasks(ctx)
	require.NoError(t, err)
	require.Equal(t, []client.Task{{Name: "compact", Stopped: true, Runs: 7, Last: time.UnixMilli(1000), Took: 8 * time.Microsecond, Err: "e", Next: "n"}}, list)
	require.NoError(t, c.StopTask(ctx, "a"))
	require.NoError(t, c.StartTask(ctx, "b"))
	require.NoError(t, c.RunTask(ctx, "c"))
	for i, want := range []ipc.Call{
		{Method: ipc.MethodCompact}, {Method: ipc.MethodCompact, Offset: 1 << 41}, {Method: ipc.MethodTasks, Action: ipc.ActionGet},
		{Method: ipc.MethodTasks, Action: ipc.ActionStop, Name: []byte("a")},
		{Method: ipc.MethodTasks, Action: ipc.ActionStart, Name: []byte("b")},
		{Method: ipc.MethodTasks, Action: ipc.ActionRun, Name: []byte("c")},
	} {
		require.Equal(t, want, asked[i])
	}
}
