package ipc

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What could go wrong: daemon and client look in different places, or a user's daemon in root's.
func TestPlaces(t *testing.T) {
	for _, x := range []struct {
		env         map[string]string
		uid         int
		socket, dir string
	}{
		{map[string]string{"RSKV_SOCKET": "/s", "RUNTIME_DIRECTORY": "/r"}, 0, "/s", "/var/lib/rskv"},
		{map[string]string{"RUNTIME_DIRECTORY": "/run/a:/run/b", "STATE_DIRECTORY": "/st/a:/st/b"}, 5, "/run/a/rskv.sock", "/st/a"},
		{map[string]string{"XDG_RUNTIME_DIR": "/x", "HOME": "/root"}, 0, "/run/rskv/rskv.sock", "/var/lib/rskv"},
		{map[string]string{"XDG_RUNTIME_DIR": "/x", "XDG_STATE_HOME": "/y", "HOME": "/h"}, 5, "/x/rskv/rskv.sock", "/y/rskv"},
		{map[string]string{"XDG_RUNTIME_DIR": "relative", "HOME": "/h"}, 5, "/h/.local/state/rskv/rskv.sock", "/h/.local/state/rskv"},
		{nil, 5, "/tmp/rskv-5/rskv.sock", "/tmp/rskv-5"},
	} {
		p := places{func(name string) string { return x.env[name] }, x.uid, "/tmp"}
		require.Equal(t, x.socket, p.socket(), "%v", x.env)
		require.Equal(t, x.dir, p.dir(), "%v", x.env)
	}
	t.Setenv("RSKV_SOCKET", "/from/env")
	require.Equal(t, "/from/env", DefaultSocket())
	t.Setenv("STATE_DIRECTORY", "/state")
	require.Equal(t, "/state", DefaultDir())
}

// What could go wrong: a path too long for a socket gives an error nobody understands.
func TestCheckSocketPath(t *testing.T) {
	require.NoError(t, CheckSocketPath(strings.Repeat("p", MaxSocketPath)))
	require.ErrorContains(t, CheckSocketPath(strings.Repeat("p", MaxSocketPath+1)), "108 bytes")
	require.Error(t, CheckSocketPath(""))
}
