package main

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/client"
)

// Monitoring knows nothing but the exit code: one that is wrong wakes somebody
// up, or nobody.
func TestHealth(t *testing.T) {
	f := newFake(t)
	for _, c := range []struct {
		state string
		code  int
		text  string
	}{
		{client.StateOK, 0, "ok\n"},
		{client.StateReadOnly, 1, "read only since 2026-01-01T00:00:00Z: reason\n"},
		{client.StateFull, 2, "disk full since 2026-01-01T00:00:00Z: reason\n"},
		{"of a newer daemon", 1, "of a newer daemon since 2026-01-01T00:00:00Z: reason\n"},
	} {
		f.mu.Lock()
		f.health = c.state
		f.mu.Unlock()
		require.Equal(t, result{c.code, c.text, ""}, rskv(t, f.socket, "", "health"))
		require.Contains(t, rskv(t, f.socket, "", "health", "--json").stdout, `{"state":"`+c.state+`","error":"reason"`)
	}
	socket := filepath.Join(t.TempDir(), "none")
	r := rskv(t, socket, "", "health")
	require.Equal(t, result{3, "", "rskv: no daemon listens on " + socket + " (--socket or RSKV_SOCKET names another)\n"}, r)
}
