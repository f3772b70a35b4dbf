package daemon

import (
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReader_Gone: a client that ends together with what it sends, all of it or its own
// side only, is not missed by a reader that does not ask the socket once more.
func TestReader_Gone(t *testing.T) {
	d := start(t, func(cfg *Config) { cfg.CommitInterval = 0 })
	w := d.dial()
	key, synced := []byte("k"), opt{"sync": true}
	w.want(true, "put", key, []byte("v"))
	get := request(1, "get", key)
	sent := map[string]struct {
		bytes   []byte
		answers int
	}{
		"nothing":                     {nil, 0},
		"a request":                   {get, 1},
		"half of one":                 {get[:len(get)/2], 0},
		"one and a half":              {append(request(2, "get", key), get[:3]...), 1},
		"a notification":              {notification("put", key, []byte("v")), 0},
		"a synced one":                {notification("put", key, []byte("v"), synced), 0},
		"a synced request":            {request(1, "put", key, []byte("v"), synced), 1},
		"two, one of them to be held": {append(request(1, "put", key, []byte("v"), synced), request(2, "sync")...), 2},
	}
	for range 20 {
		for name, s := range sent {
			whole, half := dialPath(t, d.cfg.Socket), dialPath(t, d.cfg.Socket)
			whole.send(s.bytes)
			require.NoError(t, whole.conn.Close())
			half.send(s.bytes)
			require.NoError(t, half.conn.CloseWrite())
			for range s.answers {
				require.Empty(t, half.must().code, name)
			}
			require.NoError(t, half.conn.SetReadDeadline(time.Now().Add(patience)))
			_, err := half.conn.Read(make([]byte, 1))
			require.ErrorIs(t, err, io.EOF, name)
			require.NoError(t, half.conn.Close())
		}
	}
	require.Eventually(t, func() bool {
		return w.ask("stats").result.(map[string]any)["daemon_connections"] == int64(1)
	}, patience, 10*time.Millisecond)
}
