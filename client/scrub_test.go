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

// What could go wrong: a number of the status lands in another field, or the rate is not the one
// asked for.
func TestScrub(t *testing.T) {
	s := newFakeServer(t)
	var asked []ipc.Call
	found := []any{[]any{"seg", 1 << 40, 1<<40 + 64, "torn"}}
	s.hook = func(_ *fakeServer, conn net.Conn, q *ipc.Request) bool {
		lim := ipc.DefaultLimits()
		var c ipc.Call
		require.Nil(t, ipc.ParseCall(q, &lim, &c))
		asked = append(asked, c)
		out := ipc.AppendResultHeader(nil, q.ID)
		if c.Action != ipc.ActionStatus {
			_, _ = conn.Write(ipc.AppendBool(out, c.Action == ipc.ActionStart))
			return true
		}
		text, err := msgpack.Marshal(map[string]any{"state": "done", "begun": 1000, "ended": 0, "rate": 5, "bytes": 6, "total": 7,
			"records": 8, "damages": 1, "damaged_bytes": 64, "found": found, "error": "e"})
		require.NoError(t, err)
		_, _ = conn.Write(append(out, text...))
		return true
	}
	c, ctx := dialFake(t, s), within(t, time.Minute)
	require.NoError(t, c.Scrub(ctx, client.ScrubRateDefault))
	require.NoError(t, c.Scrub(ctx, 0))
	require.NoError(t, c.Scrub(ctx, 1<<40))
	ran, err := c.StopScrub(ctx)
	require.NoError(t, err)
	require.False(t, ran)
	status, err := c.ScrubStatus(ctx)
	require.NoError(t, err)
	require.Equal(t, client.ScrubStatus{State: "done", Begun: time.UnixMilli(1000), Rate: 5, Bytes: 6, Total: 7, Records: 8,
		Damages: 1, DamagedBytes: 64, Found: []client.ScrubDamage{{File: "seg", From: 1 << 40, Until: 1<<40 + 64, Why: "torn"}}, Err: "e"}, status)
	for i, want := range []ipc.Call{
		{Action: ipc.ActionStart}, {Action: ipc.ActionStart, HasRate: true}, {Action: ipc.ActionStart, HasRate: true, Rate: 1 << 40},
		{Action: ipc.ActionStop}, {Action: ipc.ActionStatus},
	} {
		want.Method = ipc.MethodScrub
		require.Equal(t, want, asked[i])
	}
	found[0] = "nonsense"
	_, err = c.ScrubStatus(ctx)
	require.ErrorIs(t, err, client.ErrProtocol)
}
