package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// screen is a stream that can be read while it is written to.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(b)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// during runs the tool until what it prints is enough, and returns its exit code
// and what it printed.
func during(t *testing.T, socket string, enough func(text string) bool, args ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, stderr screen
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, append([]string{"--socket", socket}, args...), strings.NewReader(""), &out, &stderr)
	}()
	deadline := time.After(2 * time.Minute)
	for !enough(out.String()) {
		select {
		case c := <-code:
			return c, out.String() + stderr.String()
		case <-deadline:
			t.Fatalf("rskv %v printed %q and %q", args, out.String(), stderr.String())
		case <-time.After(5 * time.Millisecond):
		}
	}
	cancel()
	return <-code, out.String()
}

// What is asked about others' requests in trouble must come from the real
// daemon: the fake would agree with anything.
func TestRskvd_Observe(t *testing.T) {
	program, work := buildDaemon(t), t.TempDir()
	socket := filepath.Join(work, "s")
	d := startDaemon(t, program, filepath.Join(work, "data"), socket)
	require.Equal(t, result{0, "", ""}, rskv(t, socket, "", "slowlog"))
	require.Equal(t, 0, rskv(t, socket, "", "config", "slowlog_threshold=1us").code)
	require.Equal(t, 0, rskv(t, socket, "value", "put", "slow", "--sync").code)
	r := rskv(t, socket, "", "slowlog", "--count", "1")
	require.Regexp(t, `^\d+\t\S+Z\t\S+s\twaited: commit\tput "slow"\tpid \d+ uid \d+\n$`, r.stdout)
	require.Contains(t, rskv(t, socket, "", "slowlog", "--json").stdout, `"waited":"commit","method":"put","key":"slow","requests":1,`)
	require.Regexp(t, `^{"forgotten":[2-9]}`, rskv(t, socket, "", "slowlog", "--reset", "--json").stdout)

	code, text := during(t, socket, func(text string) bool {
		require.Equal(t, 0, rskv(t, socket, "12345", "put", "seen").code)
		return strings.Contains(text, "seen")
	}, "monitor")
	require.Equal(t, 0, code)
	require.Regexp(t, `(?m)^\S+Z\tput "seen", 5 bytes\tpid \d+ uid \d+$`, text)
	d.stop(t)
}
