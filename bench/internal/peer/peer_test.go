package peer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A peer left behind would eat the machine's cores from then on.
func TestServer_StopEndsTheProcess(t *testing.T) {
	dir := t.TempDir()
	s, err := Redis(t.Context(), dir, EverySec)
	if err != nil && err.Error() == "redis-server is not installed" {
		t.Skip("redis-server is not installed")
	}
	require.NoError(t, err)
	pid := s.Pid()
	require.NoError(t, syscall.Kill(pid, 0))
	require.NoError(t, s.Stop())
	require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH)
	require.NoError(t, s.Stop(), "stopping again does nothing")
}

// A server that cannot start must say why, and at once.
func TestStart_ProcessEnds(t *testing.T) {
	program := filepath.Join(t.TempDir(), "p")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\necho first\necho 'no such luck' >&2\nexit 3\n"), 0o755))
	begin := time.Now()
	_, err := start(t.Context(), "p", filepath.Join(t.TempDir(), "sock"), program)
	require.ErrorContains(t, err, "no such luck")
	require.ErrorContains(t, err, "exit status 3")
	require.Less(t, time.Since(begin), readyMax)
}

// An interrupted run must not leave a server that never got ready.
func TestStart_ContextEnds(t *testing.T) {
	program := filepath.Join(t.TempDir(), "p")
	require.NoError(t, os.WriteFile(program, []byte("#!/bin/sh\nexec sleep 60\n"), 0o755))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := start(ctx, "p", filepath.Join(t.TempDir(), "sock"), program)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// A run that is killed must not leave its servers behind: TestMain is such a run
// when it is told so.
func TestStart_ParentIsKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends children with their parent")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	for _, how := range []string{"server", "command"} {
		parent := exec.Command(self)
		parent.Env = append(os.Environ(), parentOf+"="+how)
		out, err := parent.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, parent.Start())
		child := 0
		_, err = fmt.Fscan(out, &child)
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(child, 0))
		require.NoError(t, parent.Process.Kill())
		require.Error(t, parent.Wait())
		require.Eventually(t, func() bool { return !runs(child) }, 20*time.Second, 10*time.Millisecond, how)
	}
}

// parentOf is the variable that makes this program the parent of something.
const parentOf = "RSKV_PEER_TEST_PARENT"

func TestMain(m *testing.M) {
	how := os.Getenv(parentOf)
	if how == "" {
		os.Exit(m.Run())
	}
	ctx := context.Background()
	cmd := Command(ctx, "sleep", "120")
	start := cmd.Start
	if how == "server" {
		start = func() error { return runChild(cmd, func(error) {}) }
	}
	if err := start(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(cmd.Process.Pid)
	for i := range 100 { // goroutines come and go, and threads with them
		go time.Sleep(time.Duration(i) * time.Millisecond)
	}
	time.Sleep(time.Minute)
}

// runs reports whether a process is there and not only waits to be buried.
func runs(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(b), ") ")
	return err == nil && !strings.HasPrefix(state, "Z")
}

// What is missing is said in one sentence, so that the row can say it.
func TestFind_Missing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Redis(t.Context(), t.TempDir(), Never)
	require.EqualError(t, err, "redis-server is not installed")
	_, err = FioJob{}.Run(t.Context())
	require.EqualError(t, err, "fio is not installed")
	_, err = RSKVD(t.Context(), "", t.TempDir(), 1, 0)
	require.ErrorContains(t, err, "--rskvd names it")
}

// A program of its own that is not there is an error of starting.
func TestRSKVD_WrongPath(t *testing.T) {
	_, err := RSKVD(t.Context(), filepath.Join(t.TempDir(), "none"), t.TempDir(), 1, 0)
	require.True(t, errors.Is(err, os.ErrNotExist), "%v", err)
}

// fio's figures read from the wrong field would be compared with ours.
func TestParseFio(t *testing.T) {
	s, err := parseFio([]byte(`note: something
{"fio version":"fio-3.33","jobs":[{"jobname":"job","error":0,"job_runtime":2000,"usr_cpu":10.0,"sys_cpu":40.0,
 "read":{"total_ios":160000,"runtime":1990,"iops":80402.0},"write":{"total_ios":0,"runtime":0}}]}`))
	require.NoError(t, err)
	require.EqualValues(t, 160000, s.Ops)
	require.Equal(t, 1990*time.Millisecond, s.Elapsed)
	require.Equal(t, time.Second, s.CPU)
	for _, bad := range []string{"", "oops", "{", `{"jobs":[]}`, `{"jobs":[{"error":5}]}`, `{"jobs":[{"error":0}]}`} {
		_, err := parseFio([]byte(bad))
		require.Error(t, err, bad)
	}
}

// The same for redis-benchmark.
func TestParseRedisBenchmark(t *testing.T) {
	set, get, err := parseRedisBenchmark("\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"100.50\",\"1\"\n\"GET\",\"200.25\",\"1\"\n")
	require.NoError(t, err)
	require.Equal(t, 100.50, set)
	require.Equal(t, 200.25, get)
	_, _, err = parseRedisBenchmark("\"test\",\"rps\"\n\"SET\",\"100\"\n")
	require.Error(t, err)
}
