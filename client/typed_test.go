package client_test

import (
	"context"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"rskv/client"
	"rskv/ipc"

	"github.com/stretchr/testify/require"
)

type user struct {
	Name  string
	Roles map[string]string
	Age   int
}

// What could go wrong: a typed value does not come back as it went in, or equal values differ in
// their bytes and cannot be swapped.
func TestTyped(t *testing.T) {
	c := dialFake(t, newFakeServer(t))
	ctx := within(t, time.Minute)
	users := client.NewTyped(c, client.MsgPack[user]())
	k := []byte("u")
	_, err := users.Get(ctx, k)
	require.ErrorIs(t, err, client.ErrNotFound)
	make := func(age int) *user {
		return &user{"Ada", map[string]string{"a": "1", "b": "2", "c": "3", "d": "4", "e": "5"}, age}
	}
	swapped, err := users.CompareAndSwap(ctx, k, nil, make(1))
	require.NoError(t, err)
	require.True(t, swapped)
	for age := range 50 {
		swapped, err = users.CompareAndSwap(ctx, k, make(age+1), make(age+2))
		require.NoError(t, err)
		require.True(t, swapped)
	}
	got, err := users.Get(ctx, k)
	require.NoError(t, err)
	require.Equal(t, *make(51), got)
	stored, err := users.Put(ctx, k, user{}, client.IfAbsent)
	require.NoError(t, err)
	require.False(t, stored)
	swapped, err = users.CompareAndSwap(ctx, k, make(51), nil)
	require.NoError(t, err)
	require.True(t, swapped)
}

// What could go wrong: a five-byte value has gigabytes set aside for it, or nesting overflows the
// stack.
func TestMsgPack_ChecksLengthsFirst(t *testing.T) {
	bombs := [][]byte{
		{0xc6, 0x40, 0, 0, 0}, {0xdb, 0x40, 0, 0, 0}, {0xdd, 0x10, 0, 0, 0}, {0xdf, 0x10, 0, 0, 0}, {0xc1}, {}, {1, 2},
		[]byte(strings.Repeat("\x91", 1_000_000)), []byte(strings.Repeat("\x81\x01", 1_000_000)),
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, b := range bombs {
		_, err := client.MsgPack[any]().Decode(b)
		require.Error(t, err)
		_, err = client.MsgPack[[]byte]().Decode(b)
		require.Error(t, err)
		_, err = client.MsgPack[[]user]().Decode(b)
		require.Error(t, err)
	}
	runtime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(10<<20))
}

// What could go wrong: a client allocates for every request.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := newFakeServer(t)
	value := make([]byte, 100)
	s.instant = func(out []byte, q *ipc.Request) []byte { return ipc.AppendBinResult(out, q.ID, value) }
	c := dialFake(t, s)
	ctx := context.Background()
	key := []byte("k000000000000000")
	batch := c.NewBatch()
	perBatch := testing.AllocsPerRun(500, func() {
		for range 128 {
			batch.Get(key)
		}
		if err := batch.Do(ctx); err != nil {
			t.Fatal(err)
		}
	})
	require.Less(t, perBatch, 3.0, "for 128 requests")
	dst := make([]byte, 0, 200)
	perGet := testing.AllocsPerRun(500, func() {
		if _, err := c.GetInto(ctx, dst, key); err != nil {
			t.Fatal(err)
		}
	})
	require.Less(t, perGet, 1.0)
}

// What could go wrong: the client grows a dependency on the engine or on io_uring.
func TestImports_NeitherEngineNorRing(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "rskv/client").CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "rskv/ipc\n")
	for _, forbidden := range []string{"rskv/engine", "rskv/ioring", "rskv/daemon", "giouring"} {
		require.NotContains(t, string(out), forbidden)
	}
}
