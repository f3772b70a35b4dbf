package daemon

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

// TestScan_Order: a scan in order that leaves out what is between its bounds, or a
// daemon without the ordered index that takes them for nothing.
func TestScan_Order(t *testing.T) {
	w := start(t, func(c *Config) { c.Ordered = true }).dial()
	var want []any
	for i := range 300 {
		w.want(true, "put", fmt.Appendf(nil, "%03d", i), []byte("v"))
		want = append(want, fmt.Appendf(nil, "%03d", i))
	}
	all := func(o opt) (keys []any) {
		o["keys"], o["count"] = true, 70
		for {
			next, entries := w.page(o)
			if keys = append(keys, entries...); next == nil {
				return keys
			}
			o["cursor"] = next
		}
	}
	require.Equal(t, want, all(opt{}))
	require.Equal(t, want[20:30], all(opt{"prefix": []byte("02")}))
	require.Equal(t, want[25:], all(opt{"from": []byte("025"), "to": nil}))
	require.Equal(t, want[:25], all(opt{"to": []byte("025"), "from": []byte{}}))
	require.Empty(t, all(opt{"to": []byte{}}))
	down := all(opt{"from": []byte("100"), "to": []byte("280"), "reverse": true})
	slices.Reverse(down)
	require.Equal(t, want[100:280], down)
	without := start(t, nil).dial()
	for _, o := range []opt{{"from": []byte("a")}, {"to": []byte{}}, {"reverse": true}} {
		without.refuse(ipc.CodeBadRequest, "scan", o)
	}
	require.Empty(t, without.ask("scan", opt{"from": nil, "to": nil, "reverse": false}).code)
	next, _ := w.page(opt{"count": 10})
	without.refuse(ipc.CodeCursorLost, "scan", opt{"cursor": next})
}

// page asks for a page of a scan.
func (w *wire) page(o opt) (next any, entries []any) {
	w.t.Helper()
	a := w.ask("scan", o)
	require.Empty(w.t, a.code, a.reason)
	both := a.result.([]any)
	require.Len(w.t, both, 2)
	return both[0], both[1].([]any)
}

// TestScan_Pages: keys that are lost, doubled or of another prefix over the pages
// of a scan, other requests that wait for it, and cursors that are none.
func TestScan_Pages(t *testing.T) {
	w := start(t, nil).dial()
	next, entries := w.page(opt{})
	require.Nil(t, next)
	require.Empty(t, entries)
	const n = 500
	for i := range n {
		w.want(true, "put", fmt.Appendf(nil, "k%d", i), fmt.Appendf(nil, "v%d", i))
	}
	w.want(true, "put", []byte("other"), make([]byte, 200_000))
	w.want(true, "del", []byte("k7"))
	seen := map[string]bool{}
	pages := 0
	for o := (opt{"prefix": []byte("k"), "count": 50}); ; pages++ {
		next, entries := w.page(o)
		require.LessOrEqual(t, len(entries), 50)
		for _, e := range entries {
			pair := e.([]any)
			k := string(pair[0].([]byte))
			require.False(t, seen[k], k)
			seen[k] = true
			require.Equal(t, "v"+k[1:], string(pair[1].([]byte)))
		}
		if next == nil {
			break
		}
		o["cursor"] = next
		w.want(true, "put", fmt.Appendf(nil, "k%d", pages), fmt.Appendf(nil, "v%d", pages)) // beside it; k7 comes back
	}
	delete(seen, "k7")
	require.Len(t, seen, n-1)
	require.GreaterOrEqual(t, pages, n/50-1)
	_, entries = w.page(opt{"prefix": []byte("oth"), "keys": true})
	require.Equal(t, []any{[]byte("other")}, entries)
	_, entries = w.page(opt{"prefix": []byte("oth")})
	require.Len(t, entries[0].([]any)[1], 200_000)
	w.refuse(ipc.CodeCursorLost, "scan", opt{"cursor": []byte{}})
	w.refuse(ipc.CodeCursorLost, "scan", opt{"cursor": []byte("nonsense")})
	w.want(int64(n+1), "len", opt{"exact": true})
}
