package client_test

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What could go wrong: rpc.py, which other tests trust to judge a daemon, fails against a server
// that does nothing wrong, or cannot tell one that does.
func TestPythonClient(t *testing.T) {
	const python = "/usr/bin/python3" // the one that Debian's python3-msgpack belongs to
	if exec.Command(python, "-c", "import msgpack").Run() != nil {
		t.Skip("python3-msgpack is not installed")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	s := newFakeServer(t)
	out, err := exec.CommandContext(ctx, python, "../ipc/testdata/rpc.py", s.path).CombinedOutput()
	require.NoError(t, err, "%s", out)

	liar := newFakeServer(t)
	liar.mu.Lock() // rpc.py's connection is no synchronisation the race detector knows
	liar.lie = true
	liar.mu.Unlock()
	out, err = exec.CommandContext(ctx, python, "../ipc/testdata/rpc.py", liar.path).CombinedOutput()
	require.Error(t, err, "%s", out)
	require.Contains(t, string(out), "FAIL")
}
