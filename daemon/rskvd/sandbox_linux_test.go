package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// freeAddress is one that nobody has, with a port that the system gives to nobody who asks
// for any: a daemon that starts later finds it free.
func freeAddress(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	require.NoError(t, err)
	given := 0 // from there on
	_, err = fmt.Sscan(string(text), &given)
	require.NoError(t, err)
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", max(given, 12_000)-1-rand.IntN(10_000))
		if listener, err := net.Listen("tcp", address); err == nil {
			require.NoError(t, listener.Close())
			return address
		}
	}
	t.Fatal("no port is free")
	return ""
}

// TestSandbox: a daemon that can do what it has no need to, or not what it has.
func TestSandbox(t *testing.T) {
	dir := place(t)
	address := freeAddress(t)
	settings := filepath.Join(dir, "etc", "rskvd.toml")
	require.NoError(t, os.Mkdir(filepath.Dir(settings), 0o700))
	outside := filepath.Join(place(t), "outside.toml")
	require.NoError(t, os.WriteFile(outside, []byte("max_connections = 66\n"), 0o600))
	write := func(text string) { // as an editor does
		require.NoError(t, os.WriteFile(settings+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(settings+".new", settings))
	}
	write("max_connections = 44\n")
	args := []string{"--config", settings, "--admin-listen", address, "--segment-size", "4MiB", "--page-size", "256KiB", "--more-sockets", filepath.Join(dir, "new", "m")}
	cmd, socket, stderr := serving(t, dir, args...)
	require.Eventually(t, func() bool { return strings.Contains(stderr.String(), "msg=sandbox") }, patience, time.Millisecond, "%s", stderr)
	applied := regexp.MustCompile(`msg=sandbox applied="(.*)"`).FindStringSubmatch(stderr.String())
	require.NotNil(t, applied, "%s", stderr)
	if !strings.Contains(applied[1], "Landlock, version") {
		t.Skipf("this machine has no Landlock: %s", applied[1])
	}
	t.Log(applied[1], regexp.MustCompile(`backend=\S+`).FindString(stderr.String()))

	// Everything the daemon does goes on working.
	conn, err := net.Dial("unix", socket)
	require.NoError(t, err)
	defer conn.Close()
	a := &asks{t: t, conn: conn}
	value := make([]byte, 100_000)
	for i := range 500 { // 50 MB: more segments than one, and cold reads
		a.ask("put", fmt.Sprint("key", i), value)
	}
	a.ask("sync")
	a.ask("get", "key0")
	a.ask("checkpoint")
	a.ask("compact")
	a.ask("scrub", "start")
	a.ask("backup", "open")
	a.ask("backup", "read", 0)
	a.ask("backup", "close")
	a.ask("config", map[string]any{"set": map[string]any{"memory": "40MiB"}})
	for _, client := range []*http.Client{
		http.DefaultClient,
		{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", socket+".admin") }}},
	} {
		answer, err := client.Get("http://" + address + "/metrics")
		require.NoError(t, err)
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.NoError(t, answer.Body.Close())
		require.Contains(t, string(text), "process_open_fds")
		require.Contains(t, string(text), "rskv_ready 1")
	}
	http.DefaultClient.CloseIdleConnections()
	said := func(what string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Contains(stderr.String(), what) }, patience, time.Millisecond, "%s: %s", what, stderr)
	}
	write("max_connections = 55\nroles = 'nobody=read,*=write'\nmemory = '30%'\n")
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	said("name=max_connections value=55")

	// No thread has more than the others, and what is elsewhere is out of reach,
	// also for root.
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", cmd.Process.Pid))
	require.NoError(t, err)
	there := 0
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended meanwhile
		}
		require.NoError(t, err)
		require.Contains(t, string(status), "NoNewPrivs:\t1\n", task)
		there++
	}
	require.Greater(t, there, 2)
	require.NoError(t, os.Remove(settings))
	require.NoError(t, os.Symlink(outside, settings))
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	said("permission denied")
	require.NotContains(t, stderr.String(), "value=66")

	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), "%s", stderr)
	for _, path := range []string{socket, socket + ".admin", filepath.Join(dir, "new", "m")} {
		require.NoFileExists(t, path, "it cannot take its socket away")
	}

	// It comes up again, and without a sandbox it reaches what it is told to.
	cmd, _, stderr = serving(t, dir, append(args, "--sandbox", "off")...)
	said(`sandbox applied="off, as asked for"`)
	require.NoError(t, os.WriteFile(outside, []byte("max_connections = 77\n"), 0o600))
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	said("name=max_connections value=77")
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), "%s", stderr)
}
