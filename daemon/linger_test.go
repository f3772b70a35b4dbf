package daemon

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestLinger_InVain: a reader goes on looking for what does not come, or never does
// again.
func TestLinger_InVain(t *testing.T) {
	l, asked := linger{}, uint64(0)
	answered := func() { asked++; l.answered(asked) }
	for range 2 {
		for range lingerInVain - 1 {
			answered()
			require.True(t, l.due)
			l.done(false)
		}
		answered()
		require.True(t, l.due)
		l.done(true) // once is enough to begin to count anew
		for range lingerInVain {
			answered()
			require.True(t, l.due)
			l.done(false)
		}
		for range lingerAgain - 1 {
			answered()
			require.False(t, l.due)
		}
	}
	for range lingerAgain {
		answered()
	}
	require.True(t, l.due)
	asked++
	answered()
	require.False(t, l.due, "others have asked meanwhile")
	single := linger{skip: -1}
	single.answered(1)
	require.False(t, single.due, "with one processor the client needs it")
}

// TestLinger: what a client sends at once, later, in pieces or as its last, is lost
// or answered twice by a reader that looks for it before it sleeps.
func TestLinger(t *testing.T) {
	d := start(t, func(cfg *Config) { cfg.CommitInterval = 0 })
	synced := map[string]any{"sync": true}
	w := d.dial()
	for id := range uint32(600) {
		b := request(id, "put", []byte("k"), []byte{byte(id)}, synced)
		switch id % 50 {
		case 7:
			time.Sleep(3 * lingerFor)
		case 8:
			_, err := w.conn.Write(b[:3])
			require.NoError(t, err)
			b = b[3:]
		}
		_, err := w.conn.Write(b)
		require.NoError(t, err)
		a := w.must()
		require.Equal(t, id, a.id)
		require.Empty(t, a.code, a.reason)
	}
	w.want([]byte{byte(599 & 0xff)}, "get", []byte("k"))
	w.want(true, "put", []byte("k"), []byte("last"), synced)
	require.NoError(t, w.conn.Close())
	d.dial().want([]byte("last"), "get", []byte("k"))
}
