package ipc_test

import (
	"bytes"
	"testing"

	"rskv/ipc"

	"github.com/stretchr/testify/require"
)

// What could go wrong: the three stations disagree about where a message ends or what it says.
func TestStations_GetAndPut(t *testing.T) {
	var stream []byte
	stream = ipc.AppendGet(stream, 7, []byte("k"))
	stream = ipc.AppendPut(stream, 1<<31, []byte("k"), bytes.Repeat([]byte("v"), 300))
	lim := ipc.DefaultLimits()
	split := ipc.NewSplitter(ipc.MaxRequest)
	var got []ipc.Method
	for len(stream) > 0 {
		n, err := split.Next(stream)
		require.Nil(t, err)
		require.Positive(t, n)
		var q ipc.Request
		require.Nil(t, ipc.ParseRequest(stream[:n], &q))
		var c ipc.Call
		require.Nil(t, ipc.ParseCall(&q, &lim, &c))
		require.Equal(t, "k", string(c.Key))
		got = append(got, c.Method)
		stream = stream[n:]
	}
	require.Equal(t, []ipc.Method{ipc.MethodGet, ipc.MethodPut}, got)
}
