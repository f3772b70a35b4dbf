package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// rskvd is a daemon as a process of its own.
type rskvd struct {
	cmd *exec.Cmd
	log *bytes.Buffer // complete when the process has ended
}

// buildDaemon builds rskvd once for a test.
func buildDaemon(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "rskvd")
	out, err := exec.Command("go", "build", "-tags", "giouring", "-ldflags=-checklinkname=0", "-o", program, "rskv/daemon/rskvd").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program
}

// startDaemon starts program on dir and waits until it answers.
func startDaemon(t *testing.T, program, dir, socket string) *rskvd {
	t.Helper()
	d := &rskvd{cmd: exec.Command(program, "--dir", dir, "--socket", socket, "--memory", "32MiB"), log: &bytes.Buffer{}}
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	require.NoError(t, d.cmd.Start())
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			d.cmd.Process.Kill()
			d.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("the daemon said:\n%s", d.log)
		}
	})
	require.Eventually(t, func() bool { return rskv(t, socket, "", "ping").code == 0 }, time.Minute, 20*time.Millisecond)
	return d
}

// stop ends the daemon as systemd would, and wants exit code 0.
func (d *rskvd) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, d.cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, d.cmd.Wait())
}

// The fake agrees with the tool because one person wrote both: the real daemon
// must store, keep over a restart, and give back the same bytes.
func TestRskvd_RoundTrip(t *testing.T) {
	program, work := buildDaemon(t), t.TempDir()
	src, dir, socket := filepath.Join(work, "src"), filepath.Join(work, "data"), filepath.Join(work, "s")
	require.NoError(t, os.Mkdir(src, 0o755))
	randomTree(t, src)

	d := startDaemon(t, program, dir, socket)
	r := rskv(t, socket, "", "import", "--verify", src)
	require.Equal(t, 0, r.code, r.stderr)
	require.Equal(t, result{0, "42\n", ""}, rskv(t, socket, "", "add", "counter", "42"))
	require.Equal(t, result{1, "", ""}, rskv(t, socket, "", "get", "absent"))
	require.Equal(t, result{0, "", ""}, rskv(t, socket, "", "sync"))
	require.Contains(t, rskv(t, socket, "", "stats").stdout, "io_backend")
	require.Equal(t, 0, rskv(t, socket, "", "put", "scan\tned", "a\nb\\").code)
	require.Equal(t, result{0, "scan\\tned\ta\\nb\\\\\n", ""}, rskv(t, socket, "", "scan", "--prefix", "scan"))
	require.Equal(t, result{0, "7363616e096e6564\n", ""}, rskv(t, socket, "", "scan", "--keys", "--hex", "--prefix", "7363"))
	require.Equal(t, result{0, `{"key":"scan\tned","value":"a\nb\\"}` + "\n", ""}, rskv(t, socket, "", "scan", "--json", "--prefix", "scan"))
	keys := strings.Count(rskv(t, socket, "", "scan", "--keys").stdout, "\n")
	require.Greater(t, keys, 2)
	require.Equal(t, result{0, fmt.Sprintln(keys), ""}, rskv(t, socket, "", "len", "--exact"))
	require.Equal(t, result{0, fmt.Sprintln(keys), ""}, rskv(t, socket, "", "len"))
	watchStore(t, socket)
	require.Contains(t, rskv(t, socket, "", "config").stdout, "memory 32MiB\n")
	require.Contains(t, rskv(t, socket, "", "checkpoint", "--kind", "log").stdout, "checkpoint ")
	require.Contains(t, rskv(t, socket, "", "checkpoint", "--cookie", "nightly").stdout, "checkpoint ")
	require.Regexp(t, `^\d+\t\S+Z\tfull\tlog 0 to \d+\t[\d,]+ keys\t\S+ bytes in \d\S*s\t"nightly"\n\d+\t\S+Z\tlog\t`, rskv(t, socket, "", "checkpoints").stdout)
	require.Regexp(t, `^{"version":\d+,"kind":"full",.*"cookie":"nightly"}\n`, rskv(t, socket, "", "checkpoints", "--json").stdout)
	d.stop(t)

	d = startDaemon(t, program, dir, socket)
	r = rskv(t, socket, "", "verify", src)
	require.Equal(t, 0, r.code, r.stderr)
	require.Equal(t, result{0, "43\n", ""}, rskv(t, socket, "", "add", "counter"))
	tree := filepath.Join(work, "tree")
	require.Equal(t, 0, rskv(t, socket, "", "export", tree, "--like", src).code)
	require.Equal(t, 0, rskv(t, socket, "", "verify", tree).code)
	d.stop(t)
}

// watchStore watches what was put before: the lines must be such as scripts take
// apart, and end well when they are interrupted.
func watchStore(t *testing.T, socket string) {
	t.Helper()
	require.Equal(t, 0, rskv(t, socket, "", "sync").code)
	// A commit without a change in it is told too when that takes a while, and what is
	// changed by two may be in two.
	code, text := during(t, socket, regexp.MustCompile(`\nput[^\n]*\ncommit[^\n]*\n`).MatchString, "watch", "--from", "begin", "--prefix", "scan")
	require.Equal(t, 0, code, text)
	require.Regexp(t, `^commit\t0\n(commit\t\d+\n)*put\tscan\\tned\ta\\nb\\\\\ncommit\t\d+\n`, text)
	var at int64
	_, err := fmt.Sscanf(text[strings.LastIndex(text[:len(text)-1], "\n")+1:], "commit\t%d\n", &at)
	require.NoError(t, err, text)

	require.Equal(t, 0, rskv(t, socket, "", "del", "scan\tned").code)
	require.Equal(t, 0, rskv(t, socket, "", "put", "--sync", "scan\tned", "again").code)
	code, text = during(t, socket, regexp.MustCompile(`\n{"op":"put"[^\n]*\n{"op":"commit"[^\n]*\n`).MatchString, "watch", "--from", fmt.Sprint(at), "--prefix", "7363", "--hex", "--json")
	require.Equal(t, 0, code, text)
	require.Regexp(t, `^({"op":"commit","address":\d+}\n)+({"op":"del","address":\d+,"key_hex":"7363616e096e6564"}\n({"op":"commit","address":\d+}\n)+)?{"op":"put","address":\d+,"key_hex":"7363616e096e6564","value":"again"}\n{"op":"commit","address":\d+}\n`, text)
	require.Equal(t, 0, rskv(t, socket, "", "put", "scan\tned", "a\nb\\").code)
	require.Equal(t, result{2, "", "rskv: --from \"x\" is neither an address nor \"begin\"\n"}, rskv(t, socket, "", "watch", "--from", "x"))
	require.Equal(t, 2, rskv(t, socket, "", "watch", "--from", "16").code)
}
