package deploy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Variables that make the test binary put itself under a filter and then become
// the program in its arguments, as a container's runtime would.
const (
	beFiltered = "TEST_BINARY_IS_FILTERED" // allow: only the numbers; deny: all but the numbers
	numbers    = "TEST_FILTER_NUMBERS"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(beFiltered); mode != "" {
		fmt.Fprintln(os.Stderr, "filter:", become(mode, os.Getenv(numbers)))
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// become installs the filter and starts the program. It returns only to say why
// it could not.
func become(mode, list string) error {
	runtime.LockOSThread()
	program, err := filter(mode, list)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	const setModeFilter = 1
	// The call keeps no pointer: the kernel copies the program.
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, 0, uintptr(unsafe.Pointer(&fprog))); errno != 0 {
		return errno
	}
	return syscall.Exec(os.Args[1], os.Args[1:], []string{"HOME=/nonexistent"})
}

// filter is a program of the kernel's packet filter that looks at the number of
// the system call, the first word of what it is given.
func filter(mode, list string) ([]unix.SockFilter, error) {
	const permitted, refused = 0x7fff0000, 0x00050000 | uint32(unix.EPERM)
	listed, others := uint32(permitted), uint32(refused)
	if mode == "deny" {
		listed, others = refused, permitted
	}
	program := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}}
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, err
		}
		program = append(program, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: uint32(n)},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: listed})
	}
	return append(program, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: others}), nil
}

// numbersOf translates names of system calls. Those that this architecture does
// not have are left out, as runtimes do.
func numbersOf(t *testing.T, names []string) string {
	t.Helper()
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "golang.org/x/sys").Output()
	require.NoError(t, err)
	table, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "unix", "zsysnum_linux_"+runtime.GOARCH+".go"))
	require.NoError(t, err)
	var list []string
	for _, name := range names {
		if m := regexp.MustCompile(`\bSYS_` + strings.ToUpper(name) + ` += (\d+)`).FindSubmatch(table); m != nil {
			list = append(list, string(m[1]))
		}
	}
	return strings.Join(list, ",")
}

// served runs the daemon under a filter, puts and gets a value, takes a
// checkpoint, and returns what it logged until its end.
func served(t *testing.T, bin, mode, list string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rskvd")
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	require.NoError(t, err)
	socket := filepath.Join(dir, "s")
	cmd := exec.Command(self, filepath.Join(bin, "rskvd"), "--preset", "low-memory", "--dir", filepath.Join(dir, "data"), "--socket", socket)
	cmd.Env = []string{beFiltered + "=" + mode, numbers + "=" + list}
	var log bytes.Buffer
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	tool := func(args ...string) (string, error) {
		out, err := exec.Command(filepath.Join(bin, "rskv"), append([]string{"--socket", socket, "--timeout", "1m"}, args...)...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	up := false
	for begin := time.Now(); time.Since(begin) < time.Minute; {
		if _, err := tool("ping"); err == nil {
			up = true
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if !up {
		_ = cmd.Process.Kill()
		<-ended
		t.Fatalf("the daemon does not serve under the filter:\n%s", &log)
	}
	for _, step := range [][]string{{"put", "--sync", "key", "value"}, {"get", "key"}, {"checkpoint"}, {"stats"}} {
		out, err := tool(step...)
		if err != nil || step[0] == "get" && out != "value" {
			_ = cmd.Process.Kill()
			<-ended
			t.Fatalf("rskv %q: %s %v\n%s", step, out, err, &log)
		}
	}
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, <-ended, "%s", &log)
	return log.String()
}

// TestSeccomp: a daemon that does not start where a container forbids io_uring,
// or does not say that it does without; a profile that forbids what it needs, or
// io_uring.
func TestSeccomp(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-tags", "giouring", "-ldflags=-checklinkname=0", "-o", bin+"/", "./daemon/rskvd", "./client/rskv")
	build.Dir = "../.."
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	log := served(t, bin, "deny", numbersOf(t, []string{"io_uring_setup", "io_uring_enter", "io_uring_register"}))
	first, _, _ := strings.Cut(log, "\n")
	require.Contains(t, first, "backend=pread/pwrite", "the first line says what runs")
	require.Regexp(t, `why="no io_uring: .*(seccomp|not permitted|forbid|EPERM)`, first, "and why")

	var profile struct {
		DefaultAction string
		Syscalls      []struct {
			Names  []string
			Action string
		}
	}
	require.NoError(t, json.Unmarshal(read(t, "seccomp.json"), &profile))
	require.Equal(t, "SCMP_ACT_ERRNO", profile.DefaultAction)
	require.Len(t, profile.Syscalls, 1)
	require.Equal(t, "SCMP_ACT_ALLOW", profile.Syscalls[0].Action)
	free := served(t, bin, "deny", "999999") // what this machine gives without a profile
	log = served(t, bin, "allow", numbersOf(t, profile.Syscalls[0].Names))
	backend := regexp.MustCompile(`backend=\S+`)
	require.Equal(t, backend.FindString(free), backend.FindString(log), "the profile costs the backend:\n%s", log)
	sandbox := regexp.MustCompile(`msg=sandbox applied=".*"`)
	require.Equal(t, sandbox.FindString(free), sandbox.FindString(log), "the profile costs the sandbox")
	require.NotContains(t, log, "level=WARN")
	t.Log(backend.FindString(log))
}
