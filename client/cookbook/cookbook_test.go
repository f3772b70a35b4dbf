package cookbook

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/client/rskvtest"
)

// build builds the programs once.
func build(t *testing.T) (dir string) {
	dir = t.TempDir()
	out, err := exec.Command("go", "build", "-o", dir, "./...").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

// program is one with a daemon to talk to.
func program(t *testing.T, path, socket string, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "RSKV_SOCKET="+socket)
	return cmd
}

// What a reader copies must run, and print what it says; and every program must be in the list.
func TestPrograms(t *testing.T) {
	dir := build(t)
	listed, err := os.ReadFile("README.md")
	require.NoError(t, err)
	programs, err := filepath.Glob("*/main.go")
	require.NoError(t, err)
	for _, p := range programs {
		require.Contains(t, string(listed), "("+p+")")
	}
	for name, want := range map[string]string{
		"cache":      "computed 1 time for 50 requests\n49 <nil> computed 2 times when it had expired\n",
		"counters":   "/ [10 5 5]\n/docs [10 5 5]\n/about [10 5 5]\n",
		"lock":       "true next 1\n",
		"queue":      "101 jobs done; no job waits\n",
		"websession": "200 ada map[apple:20 pear:1]\nada map[apple:20 pear:1] <nil>\n401 log in again\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := rskvtest.NewServer(t)
			out, err := program(t, filepath.Join(dir, name), s.Socket()).CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Equal(t, want, string(out))
		})
	}
}

// A message that is lost, applied twice or out of order, because the consumer was killed, its
// connection cut, or the power failed, is what exactly once is there to prevent.
func TestConsumer(t *testing.T) {
	dir := build(t)
	s := rskvtest.NewServer(t)
	const messages = 20_000
	state := filepath.Join(t.TempDir(), "state")
	starts, end := 0, time.Now().Add(2*time.Minute)
	for done := false; !done; starts++ {
		require.True(t, time.Now().Before(end), "%d starts, and not done", starts)
		cmd := program(t, filepath.Join(dir, "consumer"), s.Socket(), state, fmt.Sprint(messages))
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		require.NoError(t, cmd.Start())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		if starts < 6 {
			time.Sleep(time.Duration(15+10*starts) * time.Millisecond)
			require.NoError(t, s.Crash())
			s.Disconnect()
			time.Sleep(10 * time.Millisecond)
			_ = cmd.Process.Kill() // it may be done
		}
		err := <-ended
		done = err == nil
		if starts >= 6 {
			require.NoError(t, err, out.String())
		}
		require.Regexp(t, regexp.MustCompile(`^(\d+ writes are there: going on with message \d+\n(done\n)?)?(\d{4}/.* (session lost|connect to the daemon): .*\n)?$`), out.String())
	}
	require.Greater(t, starts, 1)
	c := s.Client(t)
	for account := range 10 {
		key := fmt.Appendf(nil, "account:%d", account)
		var sum int64
		var journal strings.Builder
		for n := account; n < messages; n += 10 {
			sum += int64(n)
			fmt.Fprintf(&journal, "%d ", n)
		}
		v, err := c.Get(t.Context(), key)
		require.NoError(t, err)
		require.EqualValues(t, sum, binary.LittleEndian.Uint64(v), "after %d starts", starts)
		v, err = c.Get(t.Context(), append(key, ":journal"...))
		require.NoError(t, err)
		require.Equal(t, journal.String(), string(v), "after %d starts", starts)
	}
}
