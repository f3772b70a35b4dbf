package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/client"
	"rskv/client/rskvtest"
)

// leftOf is what a key has left.
func leftOf(t *testing.T, c *client.Client, key string) time.Duration {
	t.Helper()
	left, err := c.TTL(t.Context(), []byte(key))
	require.NoError(t, err, key)
	return left
}

// An export of the whole store that leaves a key out, or lets one that was to be
// gone live for ever, is no way from one machine to another.
func TestExport_Whole(t *testing.T) {
	s, other := rskvtest.NewServer(t), rskvtest.NewServer(t)
	c, o := s.Client(t), other.Client(t)
	want := map[string]string{}
	for i := range 2500 { // pages and batches
		want[fmt.Sprint("a/k", i)] = strings.Repeat("v", i%300)
	}
	want["b\x00\xff"] = "\xff\n"
	for k, v := range want {
		_, err := c.Put(t.Context(), []byte(k), []byte(v))
		require.NoError(t, err)
	}
	for k, d := range map[string]time.Duration{"a/k7": time.Hour, "a/k8": 24 * time.Hour} {
		_, err := c.Expire(t.Context(), []byte(k), d)
		require.NoError(t, err)
	}
	dir := t.TempDir()
	all := filepath.Join(dir, "all.ndjson")
	r := rskv(t, s.Socket(), "", "export", all)
	require.Equal(t, 0, r.code, r.stderr)
	require.Contains(t, r.stdout, "exported 2,501 keys, ")
	text, err := os.ReadFile(all)
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(text), `,"expires":"`))

	r = rskv(t, other.Socket(), "", "import", "--verify", all)
	require.Equal(t, 0, r.code, r.stderr)
	for k, v := range want {
		got, err := o.Get(t.Context(), []byte(k))
		require.NoError(t, err, k)
		require.Equal(t, v, string(got), k)
	}
	require.InDelta(t, time.Hour, leftOf(t, o, "a/k7"), float64(5*time.Minute))
	require.InDelta(t, 24*time.Hour, leftOf(t, o, "a/k8"), float64(5*time.Minute))
	require.Equal(t, client.NoExpiry, leftOf(t, o, "a/k9"))

	for limit, lines := range map[string]int{"0": 2501, "1": 1, "1500": 1500, "9999": 2501} {
		require.Equal(t, lines, strings.Count(rskv(t, s.Socket(), "", "scan", "--keys", "--limit", limit).stdout, "\n"), limit)
	}
	require.Contains(t, rskv(t, s.Socket(), "", "scan", "--limit", "-1").stderr, "must not be below 0")

	// With a prefix, to what has no expiries.
	tree := filepath.Join(dir, "tree")
	r = rskv(t, s.Socket(), "", "export", "--prefix", "a/", tree)
	require.Contains(t, r.stdout, "exported 2,500 keys, ", r.stderr)
	require.Equal(t, 0, rskv(t, s.Socket(), "", "verify", "--prefix", "a/", tree).code)
	require.Equal(t, result{0, "b\x00\xff\t\xff\\n\n", "exported 1 keys, 5 bytes"}, cutAt(rskv(t, s.Socket(), "", "export", "--prefix", "b", "-"), " in "))

	// What was to be gone by now stays so, and is no failure.
	line := `{"key":"x","value":"v","expires":"2026-01-01T00:00:00Z"}` + "\n" + `{"key":"y","value":"v","expires":"9000-01-01T00:00:00Z"}` + "\n"
	r = rskv(t, s.Socket(), line, "import", "-", "--json")
	require.Equal(t, 0, r.code, r.stderr)
	require.Contains(t, r.stdout, `"keys":1,`)
	require.Contains(t, r.stdout, `"expired":1,"missing":0`)
	require.Equal(t, 1, rskv(t, s.Socket(), "", "get", "x").code)
	require.Equal(t, 0, rskv(t, s.Socket(), line, "verify", "-").code)

	require.Equal(t, 2, rskv(t, filepath.Join(dir, "none"), "", "export", filepath.Join(dir, "never.tsv")).code)
	require.NoFileExists(t, filepath.Join(dir, "never.tsv"), "without a daemon nothing is begun")
}

// cutAt shortens what a command said to what does not depend on time.
func cutAt(r result, at string) result {
	r.stderr, _, _ = strings.Cut(r.stderr, at)
	return r
}

// A cache that comes from Redis without its times to live never empties.
func TestRedis_Expiries(t *testing.T) {
	address := redisServer(t)
	c, err := dialRedis(address)
	require.NoError(t, err)
	defer c.close()
	require.NoError(t, c.do("SET", "hour", "v", "EX", "3600"))
	require.NoError(t, c.do("SET", "ever", "v"))
	s := rskvtest.NewServer(t)
	require.Equal(t, 0, rskv(t, s.Socket(), "", "import", "--prefix", "r:", "--verify", address).code)
	to := s.Client(t)
	require.InDelta(t, time.Hour, leftOf(t, to, "r:hour"), float64(5*time.Minute))
	require.Equal(t, client.NoExpiry, leftOf(t, to, "r:ever"))

	require.Equal(t, 0, rskv(t, s.Socket(), "", "export", "--prefix", "r:", address+"?db=1").code)
	require.NoError(t, c.do("SELECT", "1"))
	ms, err := c.ask("PTTL", "hour")
	require.NoError(t, err)
	require.InDelta(t, time.Hour.Milliseconds(), ms, float64((5 * time.Minute).Milliseconds()))
	ms, err = c.ask("PTTL", "ever")
	require.NoError(t, err)
	require.EqualValues(t, -1, ms)
}
