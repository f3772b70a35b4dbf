package client_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rskv/client"
	"rskv/ipc"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
)

// vector is one message of PROTOCOL.md. The clients in Python and Node.js are held to the same ones.
type vector struct {
	notation string
	bytes    []byte
}

// exchanges reads the requests of PROTOCOL.md, each with the responses that are shown behind it.
func exchanges(t *testing.T) (requests []vector, answers map[string][]vector) {
	text, err := os.ReadFile("../ipc/PROTOCOL.md")
	require.NoError(t, err)
	answers = map[string][]vector{}
	var last *vector
	block, request := false, ""
	for line := range strings.Lines(string(text)) {
		switch line = strings.TrimSuffix(line, "\n"); {
		case line == "```":
			block = !block
		case !block:
		case strings.HasPrefix(line, "> [0,"):
			request = line[2:]
			requests = append(requests, vector{notation: request})
			last = &requests[len(requests)-1]
		case strings.HasPrefix(line, "< [1,"):
			answers[request] = append(answers[request], vector{notation: line[2:]})
			last = &answers[request][len(answers[request])-1]
		case line[0] == '>' || line[0] == '<':
			last = &vector{}
		default:
			b, err := hex.DecodeString(strings.ReplaceAll(line, " ", ""))
			require.NoError(t, err)
			last.bytes = append(last.bytes, b...)
		}
	}
	require.Greater(t, len(requests), 40)
	return requests, answers
}

// methodOf is the method of a request as it is written.
func methodOf(notation string) string { return strings.Split(notation, `"`)[1] }

// played is what a Client is asked, by the notation of the request that it must send.
var played = map[string]func(context.Context, *client.Client) (any, error){
	`[0, 1, "ping", []]`: func(ctx context.Context, c *client.Client) (any, error) { return "pong", c.Ping(ctx) },
	`[0, 7, "get", ['k']]`: func(ctx context.Context, c *client.Client) (any, error) {
		v, err := c.Get(ctx, []byte("k"))
		if errors.Is(err, client.ErrNotFound) {
			return nil, nil
		}
		return v, err
	},
	`[0, 300, "exists", ['k']]`:     func(ctx context.Context, c *client.Client) (any, error) { return c.Exists(ctx, []byte("k")) },
	`[0, 70000, "put", ['k', 'v']]`: func(ctx context.Context, c *client.Client) (any, error) { return c.Put(ctx, []byte("k"), []byte("v")) },
	`[0, 2, "put", ['k', 'v', {"if": "absent", "sync": true}]]`: func(ctx context.Context, c *client.Client) (any, error) {
		return c.Put(ctx, []byte("k"), []byte("v"), client.IfAbsent, client.Sync)
	},
	`[0, 2, "put", ['k', 'v', {"ttl": 60000}]]`: func(ctx context.Context, c *client.Client) (any, error) {
		return c.Put(ctx, []byte("k"), []byte("v"), client.TTL(time.Minute))
	},
	`[0, 3, "del", ['k']]`: func(ctx context.Context, c *client.Client) (any, error) { return c.Delete(ctx, []byte("k")) },
	`[0, 3, "del", ['k', {"blind": true}]]`: func(ctx context.Context, c *client.Client) (any, error) {
		return c.Delete(ctx, []byte("k"), client.Blind)
	},
	`[0, 4, "cas", ['k', 'v', 'w']]`: func(ctx context.Context, c *client.Client) (any, error) {
		return c.CompareAndSwap(ctx, []byte("k"), []byte("v"), []byte("w"))
	},
	`[0, 5, "cas", ['lock', nil, 'me', {"sync": true}]]`: func(ctx context.Context, c *client.Client) (any, error) {
		return c.CompareAndSwap(ctx, []byte("lock"), nil, []byte("me"), client.Sync)
	},
	`[0, 6, "add", ['n', -1]]`: func(ctx context.Context, c *client.Client) (any, error) { return c.Add(ctx, []byte("n"), -1) },
	`[0, 8, "append", ['k', 'tail']]`: func(ctx context.Context, c *client.Client) (any, error) {
		return c.Append(ctx, []byte("k"), []byte("tail"))
	},
	`[0, 9, "mget", [['a', 'b']]]`: func(ctx context.Context, c *client.Client) (any, error) {
		values, err := c.MGet(ctx, [][]byte{[]byte("a"), []byte("b")})
		list := []any{}
		for _, v := range values {
			if v == nil {
				list = append(list, nil)
			} else {
				list = append(list, v)
			}
		}
		return list, err
	},
	`[0, 10, "mput", [[['a', '1'], ['b', '2']]]]`: func(ctx context.Context, c *client.Client) (any, error) {
		return c.MPut(ctx, []client.Pair{{Key: []byte("a"), Value: []byte("1")}, {Key: []byte("b"), Value: []byte("2")}})
	},
	`[0, 11, "mdel", [['a', 'b'], {"sync": true}]]`: func(ctx context.Context, c *client.Client) (any, error) {
		return c.MDelete(ctx, [][]byte{[]byte("a"), []byte("b")}, client.Sync)
	},
	`[0, 12, "expire", ['k', 60000]]`: func(ctx context.Context, c *client.Client) (any, error) {
		return c.Expire(ctx, []byte("k"), time.Minute)
	},
	`[0, 12, "expire", ['k', nil, {"sync": true}]]`: func(ctx context.Context, c *client.Client) (any, error) {
		return c.Persist(ctx, []byte("k"), client.Sync)
	},
	`[0, 12, "ttl", ['k']]`: func(ctx context.Context, c *client.Client) (any, error) {
		d, err := c.TTL(ctx, []byte("k"))
		if d == client.NoExpiry {
			return -1, err
		}
		return d.Milliseconds(), err
	},
	`[0, 12, "len", []]`:                func(ctx context.Context, c *client.Client) (any, error) { return c.Len(ctx) },
	`[0, 12, "len", [{"exact": true}]]`: func(ctx context.Context, c *client.Client) (any, error) { return c.LenExact(ctx) },
	`[0, 13, "sync", []]`: func(ctx context.Context, c *client.Client) (any, error) {
		n, err := c.Sync(ctx)
		return map[string]any{"durable": n}, err
	},
	`[0, 14, "stats", []]`:  func(ctx context.Context, c *client.Client) (any, error) { return c.Stats(ctx) },
	`[0, 15, "config", []]`: func(ctx context.Context, c *client.Client) (any, error) { return c.Config(ctx) },
	`[0, 15, "config", [{"set": {"commit_interval": "5ms"}}]]`: func(ctx context.Context, c *client.Client) (any, error) {
		return c.SetConfig(ctx, map[string]string{"commit_interval": "5ms"})
	},
	`[0, 16, "checkpoint", [{"kind": "full", "cookie": 'nightly'}]]`: func(ctx context.Context, c *client.Client) (any, error) {
		p, err := c.Checkpoint(ctx, client.CheckpointOptions{Cookie: []byte("nightly")})
		return map[string]any{"version": p.Version, "durable": p.Durable, "bytes": p.Bytes, "ms": p.Took.Milliseconds()}, err
	},
	`[0, 26, "health", []]`: func(ctx context.Context, c *client.Client) (any, error) {
		h, err := c.Health(ctx)
		since := int64(0)
		if !h.Since.IsZero() {
			since = h.Since.UnixMilli()
		}
		return map[string]any{"state": h.State, "error": h.Err, "since": since}, err
	},
}

// What could go wrong: a method sends other bytes than the published ones, or makes something else of
// a published answer.
func TestVectors(t *testing.T) {
	requests, answers := exchanges(t)
	byNotation, byMethod := map[string]vector{}, map[string][]vector{}
	for _, r := range requests {
		if _, there := byNotation[r.notation]; !there {
			byNotation[r.notation] = r
		}
		byMethod[methodOf(r.notation)] = append(byMethod[methodOf(r.notation)], answers[r.notation]...)
	}
	seen := map[string]bool{}
	for notation, call := range played {
		request, there := byNotation[notation]
		require.True(t, there, "%s is not in PROTOCOL.md", notation)
		seen[methodOf(notation)] = true
		list := answers[notation]
		if len(list) == 0 {
			list = byMethod[methodOf(notation)][:1]
		}
		for _, answer := range list {
			t.Run(answer.notation, func(t *testing.T) { play(t, request, answer, call) })
		}
	}
	for _, m := range ipc.Methods() {
		if c := m.Class(); (c == ipc.ClassRead || c == ipc.ClassWrite) && m != ipc.MethodHello && m != ipc.MethodScan && m.String() != "checkpoints" && m.String() != "watch" {
			require.True(t, seen[m.String()], "no vector of %s is played", m)
		}
	}
}

// play has call make its request to a daemon that knows one answer.
func play(t *testing.T, request, answer vector, call func(context.Context, *client.Client) (any, error)) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	defer l.Close()
	received := make(chan []byte, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		buf := make([]byte, 4096)
		n, _ := conn.Read(buf)
		received <- buf[:n]
		id, _ := behindID(buf[:n])
		_, rest := behindID(answer.bytes)
		_, _ = conn.Write(append(append([]byte{0x94, 0x01}, id...), rest...))
		_, _ = conn.Read(buf)
	}()
	ctx := within(t, time.Minute)
	c, err := client.Dial(ctx, path)
	require.NoError(t, err)
	defer c.Close()
	got, err := call(ctx, c)
	_, rest := behindID(<-received)
	_, want := behindID(request.bytes)
	require.Equal(t, hex.EncodeToString(want), hex.EncodeToString(rest))

	var parts []any
	require.NoError(t, msgpack.Unmarshal(answer.bytes, &parts))
	if refused, ok := parts[2].([]any); ok {
		var e *client.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, refused, []any{string(e.Code), e.Message})
		return
	}
	require.NoError(t, err)
	switch result := parts[3].(type) {
	case nil: // of a blind delete, which reports false
		require.Contains(t, []any{nil, false, 0}, got)
	case []byte:
		require.True(t, bytes.Equal(result, got.([]byte)))
	default:
		require.Equal(t, fmt.Sprint(result), fmt.Sprint(got))
	}
}

// behindID cuts a message behind its id: the head and type, two bytes, are left out.
func behindID(message []byte) (id, rest []byte) {
	n := map[byte]int{0xcc: 2, 0xcd: 3, 0xce: 5}[message[2]]
	n = max(n, 1)
	return message[2 : 2+n], message[2+n:]
}
