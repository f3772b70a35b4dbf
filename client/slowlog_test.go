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

// What could go wrong: a field of what the daemon tells about others' requests lands in another one, or
// what is not known passes for user 4,294,967,295.
func TestSlowLogAndMonitor(t *testing.T) {
	s := newFakeServer(t)
	var asked []ipc.Call
	answers := map[ipc.Action]any{
		ipc.ActionGet: []any{map[string]any{"id": 8, "time": 1500, "us": 12_000, "waited": "disk", "method": "get", "key": []byte("k"),
			"requests": 1, "client": "demo", "uid": -1, "pid": 70_000}, map[string]any{"key": nil, "uid": 0, "pid": int64(-1)}},
		ipc.ActionReset: 3, ipc.ActionStart: true, ipc.ActionStop: false,
		ipc.ActionTake: map[string]any{"dropped": 5, "requests": []any{[]any{2_000_001, -1, 4242, "demo", "mput", []byte("k"), 2, 100}}},
	}
	s.hook = func(_ *fakeServer, conn net.Conn, q *ipc.Request) bool {
		lim := ipc.DefaultLimits()
		var c ipc.Call
		require.Nil(t, ipc.ParseCall(q, &lim, &c))
		asked = append(asked, c)
		b, err := msgpack.Marshal(answers[c.Action])
		require.NoError(t, err)
		_, _ = conn.Write(append(ipc.AppendResultHeader(nil, q.ID), b...))
		return true
	}
	c, ctx := dialFake(t, s), within(t, time.Minute)
	list, err := c.SlowLog(ctx, 10)
	require.NoError(t, err)
	require.Equal(t, []client.SlowRequest{
		{ID: 8, Time: time.UnixMilli(1500), Took: 12 * time.Millisecond, Waited: "disk", Method: "get", Key: []byte("k"), Requests: 1, Client: "demo", UID: -1, PID: 70_000},
		{UID: 0, PID: -1},
	}, list)
	_, err = c.SlowLog(ctx, 0)
	require.NoError(t, err)
	n, err := c.ResetSlowLog(ctx)
	require.NoError(t, err)
	require.Equal(t, 3, n)
	require.NoError(t, c.StartMonitor(ctx, 100))
	requests, dropped, err := c.TakeMonitored(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 5, dropped)
	require.Equal(t, []client.Monitored{{Time: time.UnixMicro(2_000_001), UID: -1, PID: 4242, Client: "demo", Method: "mput", Key: []byte("k"), Keys: 2, Bytes: 100}}, requests)
	ran, err := c.StopMonitor(ctx)
	require.NoError(t, err)
	require.False(t, ran)
	answers[ipc.ActionTake] = map[string]any{"requests": []any{1}}
	_, _, err = c.TakeMonitored(ctx)
	require.ErrorIs(t, err, client.ErrProtocol)
	require.Equal(t, []int{10, 0, 0, 100, 0, 0, 0}, numbersOf(asked))
}

func numbersOf(calls []ipc.Call) (n []int) {
	for _, c := range calls {
		n = append(n, c.Number)
	}
	return n
}
