package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/client"
	"rskv/client/rskvtest"
	"rskv/ipc"
)

// A line that is left out, carried out twice or counted for another makes a load
// that nobody can trust.
func TestPipe(t *testing.T) {
	f := newFake(t)
	var lines strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&lines, "put k%d v%d\n", i%5000, i)
	}
	r := rskv(t, f.socket, lines.String(), "--pipe")
	require.Equal(t, 0, r.code, r.stderr)
	require.Regexp(t, `^20,000 commands in \d+\.\d\d s \([\d,]+/s\)\n$`, r.stdout)
	all := f.all()
	require.Len(t, all, 5000)
	for i := range 5000 {
		require.Equal(t, fmt.Sprint("v", 15_000+i), all[fmt.Sprint("k", i)])
	}

	r = rskv(t, f.socket, strings.Join([]string{
		`put 'a key' "x\n" `, "", "# nothing", "put k0 new --if absent", "put k0 new --if present", "add n 5", "add n", "add k1", "del k2", "del k2",
		"append k3 +", "put k5 new --ttl 1h", "expire k6 2h", "expire none 2h", "expire k6 soon", `cas k4 v15004 "w"`, "cas k4 v15004 w", "frobnicate", "put one", "put a b --if never", `put "open`, "add n x", "sync x",
		"put --ttl=1h k7 new", "put k8 -- --if", "put k8 --sync x --sync", "put k9 --never x", "put k9 x --if", "del k9 --ttl 1h", "add n 1 --ttl 1h --sync",
	}, "\n"), "--pipe")
	require.Equal(t, 2, r.code)
	require.Contains(t, r.stdout, "28 commands")
	require.Contains(t, r.stdout, "4 not done, 11 failed")
	for line, text := range map[int]string{
		8: "NotInteger", 15: `"soon" is no time to live`, 18: `"frobnicate" is not put, del,`, 19: "put takes KEY VALUE", 20: `--if is "never"`, 21: `a " has no end`, 22: `DELTA "x"`, 23: "sync takes nothing",
		27: "unknown flag --never", 28: "--if has no value", 29: "del has no --ttl",
	} {
		require.Regexp(t, fmt.Sprintf(`(?m)^rskv: line %d: .*%s`, line, regexp.QuoteMeta(text)), r.stderr)
	}
	require.Contains(t, r.stderr, "rskv: 11 of the commands failed\n")
	all = f.all()
	require.Equal(t, []string{"x\n", "new", "v15003+", "w"}, []string{all["a key"], all["k0"], all["k3"], all["k4"]})
	require.NotContains(t, all, "k2")
	require.Equal(t, "x", all["k8"])
	require.Equal(t, int64(7), int64(all["n"][0]))

	r = rskv(t, f.socket, "put a b\n", "--pipe", "--json")
	var tally map[string]float64
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &tally), r.stdout)
	require.Equal(t, 1.0, tally["commands"])
	require.Equal(t, 2, rskv(t, f.socket, "", "--pipe", "--stat").code)
}

// What refuses one write refuses all of them: a million lines must not be named.
func TestPipe_EndsWithTheStore(t *testing.T) {
	f := newFake(t)
	f.lies(func(c *ipc.Call) *ipc.Error {
		if c.Method == ipc.MethodPut {
			return &ipc.Error{Code: ipc.CodeReadOnly, Message: "the disk is gone"}
		}
		return nil
	})
	r := rskv(t, f.socket, strings.Repeat("put a b\n", 100_000), "--pipe")
	require.Equal(t, 2, r.code)
	require.Equal(t, "rskv: ReadOnly: the disk is gone\n", r.stderr)
}

// Sizes that are counted for another key send people after the wrong one.
func TestBigkeys(t *testing.T) {
	s := rskvtest.NewServer(t)
	c := s.Client(t)
	pairs := []client.Pair{{Key: []byte("big\xff"), Value: make([]byte, 70_000)}}
	for i := range 3000 {
		pairs = append(pairs, client.Pair{Key: fmt.Append(nil, "user/", i), Value: make([]byte, i%100)})
	}
	for i := range 12 {
		pairs = append(pairs, client.Pair{Key: fmt.Append(nil, "img:", i), Value: make([]byte, 1000+i)})
	}
	_, err := c.MPut(t.Context(), pairs)
	require.NoError(t, err)
	var bytes int
	for _, p := range pairs {
		bytes += len(p.Key) + len(p.Value)
	}
	r := rskv(t, s.Socket(), "", "--bigkeys")
	require.Equal(t, 0, r.code, r.stderr)
	require.Contains(t, r.stdout, fmt.Sprintf("3,013 keys, %s bytes", grouped(int64(bytes))))
	require.Regexp(t, `largest values\n +70,000  "big\\xff"\n +1,011  "img:11"\n +1,010  "img:10"\n +1,009  "img:9"\n`, r.stdout)
	require.NotContains(t, r.stdout, `"img:2"`, "ten are listed")
	require.Regexp(t, `beginning\n +\d+,\d+ +3,000  "user/"\n +70,004 +1  \(no / or :\)\n +12,\d+ +12  "img:"\n`, r.stdout)
	require.Regexp(t, `\n +1  131,072 bytes +#\n$`, r.stdout)

	r = rskv(t, s.Socket(), "", "--bigkeys", "--json")
	var got struct {
		Keys    int
		Largest []map[string]any
		Groups  []struct {
			Begins string
			Keys   int
		}
		Below map[string]int `json:"values_below"`
	}
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &got), r.stdout)
	require.Equal(t, 3013, got.Keys)
	require.Equal(t, map[string]any{"bytes": 70_000.0, "key_base64": "Ymln/w=="}, got.Largest[0])
	require.Equal(t, "user/", got.Groups[0].Begins)
	require.Equal(t, 12, got.Below["1024"])
	require.Zero(t, rskv(t, rskvtest.NewServer(t).Socket(), "", "--bigkeys").code, "an empty store")
}

// A store without common beginnings must not take the memory of the tool.
func TestSizes_Groups(t *testing.T) {
	s := &sizes{groups: map[string]*group{}}
	for i := range groupsMax + 1000 {
		s.add(client.Pair{Key: fmt.Append(nil, i, ":")})
	}
	require.LessOrEqual(t, len(s.groups), groupsMax+1)
	require.EqualValues(t, 1000, s.groups[otherGroup].keys)
}

// A checkpoint of a large store takes longer than --timeout, and that is well as
// long as the daemon lives; a daemon that does not is not waited for.
func TestPatience(t *testing.T) {
	f := newFake(t)
	var pings atomic.Int64
	slow := 4500 * time.Millisecond
	held := make(chan struct{})
	f.lies(func(c *ipc.Call) *ipc.Error {
		if c.Method == ipc.MethodPing {
			pings.Add(1)
		}
		return nil
	})
	tool := &tool{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	defer tool.hangUp()
	cmd := tool.root()
	tool.socket, tool.timeout = f.socket, 3*time.Second // longer than this machine stands still
	cmd.SetContext(t.Context())
	err := tool.patient(cmd, "waiting", func(ctx context.Context, _ *client.Client) error {
		select {
		case <-time.After(slow):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	require.NoError(t, err)
	require.Positive(t, pings.Load())

	tool.timeout = time.Second
	f.lies(func(c *ipc.Call) *ipc.Error { <-held; return nil })
	defer close(held)
	err = tool.patient(cmd, "waiting", func(ctx context.Context, _ *client.Client) error { <-ctx.Done(); return ctx.Err() })
	require.ErrorContains(t, err, "no answer within 1s (--timeout)")
}
