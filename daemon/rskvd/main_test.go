package main

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

// beRSKVD makes the test binary run as the program itself.
const beRSKVD = "TEST_BINARY_IS_RSKVD"

func TestMain(m *testing.M) {
	if os.Getenv(beRSKVD) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// patience is how long anything may take that should be quick.
const patience = time.Minute

// program is rskvd with arguments, not started.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, args...)
	home := t.TempDir()
	// Else a test binary that counts coverage complains at its end.
	cmd.Env = []string{beRSKVD + "=1", "HOME=" + home, "GOCOVERDIR=" + home}
	return cmd
}

// output runs rskvd to its end.
func output(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := program(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run()
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// place is a directory for a daemon, with a path short enough for a socket.
func place(t *testing.T) string {
	dir, err := os.MkdirTemp("", "rskvd")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// words is what a program says, while it goes on.
type words struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// serving starts a daemon in dir and waits until it serves.
func serving(t *testing.T, dir string, args ...string) (cmd *exec.Cmd, socket string, stderr *words) {
	t.Helper()
	socket = filepath.Join(dir, "s")
	cmd = program(t, append([]string{"--dir", filepath.Join(dir, "data"), "--socket", socket, "--memory", "32MiB"}, args...)...)
	stderr = &words{}
	cmd.Stderr = stderr
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	require.Eventually(t, func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, patience, time.Millisecond)
	return cmd, socket, stderr
}

// put sends one put and waits for its answer.
func put(t *testing.T, socket string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	_, err = conn.Write(ipc.AppendPut(nil, 1, []byte("key"), []byte("value")))
	require.NoError(t, err)
	expect(t, conn, ipc.AppendBoolResult(nil, 1, true))
	return conn
}

func expect(t *testing.T, conn net.Conn, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(patience)))
	_, err := io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, want, got)
}

// TestSignal: a daemon that loses what it has acknowledged, exits with an error
// or leaves its socket behind when it is told to stop.
func TestSignal(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		dir := place(t)
		cmd, socket, stderr := serving(t, dir, "--commit-interval", "0")
		put(t, socket)
		require.NoError(t, cmd.Process.Signal(signal))
		require.NoError(t, cmd.Wait(), "%s", stderr)
		require.NoFileExists(t, socket)
		require.Contains(t, stderr.String(), "backend=")
		require.Contains(t, strings.SplitN(stderr.String(), "\n", 2)[0], "backend=", "the first line names the backend")

		serving(t, dir)
		conn, err := net.Dial("unix", socket)
		require.NoError(t, err)
		_, err = conn.Write(ipc.AppendGet(nil, 2, []byte("key")))
		require.NoError(t, err)
		expect(t, conn, ipc.AppendBinResult(nil, 2, []byte("value")))
	}
}

// TestSignal_Twice: a daemon that cannot be ended because a client does not
// take its answers.
func TestSignal_Twice(t *testing.T) {
	cmd, socket, stderr := serving(t, place(t), "--drain-timeout", "1h", "--answer-timeout", "0")
	conn := put(t, socket)
	value := make([]byte, 8<<20)
	_, err := conn.Write(append(ipc.AppendPut(nil, 2, []byte("big"), value), ipc.AppendGet(nil, 3, []byte("big"))...))
	require.NoError(t, err)
	expect(t, conn, ipc.AppendBoolResult(nil, 2, true))
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool { _, err := os.Stat(socket); return err != nil }, patience, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Error(t, cmd.Wait())
	require.Equal(t, 1, cmd.ProcessState.ExitCode())
	require.Contains(t, stderr.String(), "second signal")
}

// TestKilled: a daemon that does not start again after it was killed.
func TestKilled(t *testing.T) {
	dir := place(t)
	cmd, socket, _ := serving(t, dir)
	put(t, socket)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.FileExists(t, socket)
	again, _, _ := serving(t, dir)
	put(t, socket)
	require.NoError(t, again.Process.Signal(syscall.SIGTERM))
	require.NoError(t, again.Wait())
}

// TestRefused: a daemon that starts where it should not, or does not say why.
func TestRefused(t *testing.T) {
	_, socket, _ := serving(t, place(t))
	_, stderr, code := output(t, "--socket", socket, "--dir", t.TempDir())
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "rskvd: another daemon serves "+socket)
	_, stderr, code = output(t, "--memory", "1KiB", "--nonsense")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "unknown flag: --nonsense")
	_, stderr, code = output(t, "--memory", "1KiB", "--io", "fast")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "--memory: 1KiB is not between")
	require.Contains(t, stderr, "--io: ")
	_, stderr, code = output(t, "argument")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "argument")
}

// TestConfig: settings shown otherwise than they would be used.
func TestConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rskvd.toml")
	require.NoError(t, os.WriteFile(file, []byte("max_keys = 5\n"), 0o600))
	stdout, _, code := output(t, "config", "dump", "--config", file, "--memory", "64MiB")
	require.Zero(t, code)
	require.Contains(t, stdout, `max_keys = "5"`)
	require.Contains(t, stdout, file+":1")
	require.Contains(t, stdout, `memory = "64MiB"`)
	_, _, code = output(t, "config", "check", "--config", file)
	require.Zero(t, code)
	require.NoError(t, os.WriteFile(file, []byte("max_kees = 5\n"), 0o600))
	_, stderr, code := output(t, "config", "check", "--config", file)
	require.Equal(t, 1, code)
	require.Contains(t, stderr, file+":1: max_kees: no such setting")
	stdout, _, code = output(t, "config", "defaults")
	require.Zero(t, code)
	require.Contains(t, stdout, `max_value = "16MiB"`)
	stdout, _, code = output(t, "version")
	require.Zero(t, code)
	require.Regexp(t, `^rskvd \S+, commit \S+, protocol 1, go\S+ \w+/\w+, built with .*CGO_ENABLED=.*; .+\n$`, stdout)
}
