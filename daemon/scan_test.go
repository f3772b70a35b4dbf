package daemon

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

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
