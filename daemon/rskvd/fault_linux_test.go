package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest/loopfs"
	"rskv/ipc"
)

// faulty is a daemon in a place where something goes wrong.
type faulty struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	socket string
	stderr *words
}

// startFaulty starts a daemon by a command line in front of its own: a tracer, a
// shell that sets limits first. The store is in data.
func startFaulty(t *testing.T, data string, front, args []string) *faulty {
	t.Helper()
	f := &faulty{t: t, dir: place(t), stderr: &words{}}
	f.socket = filepath.Join(f.dir, "s")
	f.cmd = program(t, append([]string{"--dir", data, "--socket", f.socket, "--memory", "32MiB", "--segment-size", "4MiB", "--page-size", "256KiB"}, args...)...)
	if len(front) > 0 {
		tool, err := exec.LookPath(front[0])
		require.NoError(t, err)
		f.cmd.Args = append(append([]string{}, front...), append([]string{f.cmd.Path}, f.cmd.Args[1:]...)...)
		f.cmd.Path = tool
	}
	f.cmd.Stderr = f.stderr
	require.NoError(t, f.cmd.Start())
	t.Cleanup(func() {
		_ = f.cmd.Process.Kill()
		_ = f.cmd.Wait()
		if t.Failed() {
			t.Logf("the daemon said:\n%s", f.stderr)
		}
	})
	require.Eventually(t, func() bool {
		conn, err := net.Dial("unix", f.socket)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, 3*patience, 5*time.Millisecond, "it does not serve: %s", f.stderr)
	return f
}

func (f *faulty) dial() *asks {
	f.t.Helper()
	conn, err := net.Dial("unix", f.socket)
	require.NoError(f.t, err)
	f.t.Cleanup(func() { _ = conn.Close() })
	return &asks{t: f.t, conn: conn}
}

// end stops the daemon and returns how it ended.
func (f *faulty) end() error {
	f.t.Helper()
	require.NoError(f.t, f.cmd.Process.Signal(syscall.SIGTERM))
	return f.cmd.Wait()
}

// http asks the admin socket.
func (f *faulty) http(path string) (int, string) {
	f.t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", f.socket+".admin") }}}
	answer, err := client.Get("http://rskv" + path)
	require.NoError(f.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(f.t, err)
	return answer.StatusCode, string(text)
}

// backends are the ways to the disk: both of them where io_uring works here.
var backends = []string{"uring", "sync"}

func needRing(t *testing.T, backend string) {
	t.Helper()
	if backend != "uring" {
		return
	}
	stdout, _, _ := output(t, "version")
	if !strings.Contains(stdout, "io_uring works here") {
		t.Skip("io_uring is not in the build, or not allowed on this machine")
	}
}

// traced is a command that lets a daemon's system calls fail, and the file that
// tells which: inject is one of strace's expressions.
func traced(t *testing.T, inject string) (front []string, log string) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("strace is not on this machine")
	}
	log = filepath.Join(t.TempDir(), "strace")
	call, _, _ := strings.Cut(inject, ":")
	// As a grandchild, so that signals go to the daemon.
	front = []string{"strace", "-D", "-f", "-qq", "-o", log, "-e", "inject=" + inject, "--seccomp-bpf", "-e", "trace=" + call}
	if out, err := exec.Command(front[0], append(front[2:], "true")...).CombinedOutput(); err != nil {
		t.Skipf("strace cannot trace on this machine: %v: %s", err, out)
	}
	return front, log
}

// injected is how many calls have failed in a trace.
func injected(t *testing.T, log string) int {
	t.Helper()
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	return strings.Count(string(text), "(INJECTED)")
}

// settled is how many calls a trace tells of when none has been added for a while:
// segments may be written in advance, and synced, by a thread of its own, whose calls
// are counted, and fail, for themselves.
func settled(t *testing.T, log string) int {
	t.Helper()
	last, since := 0, time.Now()
	for deadline := time.Now().Add(time.Minute); time.Since(since) < time.Second; time.Sleep(10 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), "there are calls all the time")
		text, err := os.ReadFile(log)
		require.NoError(t, err)
		if n := strings.Count(string(text), "fdatasync("); n != last {
			last, since = n, time.Now()
		}
	}
	return last
}

// TestFault_SyncOnce: an fsync that fails once and then ends well, as the kernel
// does although the data is gone, is tried again and taken for a success.
func TestFault_SyncOnce(t *testing.T) {
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			needRing(t, backend)
			data := filepath.Join(place(t), "data")
			front, log := traced(t, "fdatasync:error=EIO:when=6")
			f := startFaulty(t, data, front, []string{"--io", backend, "--commit-interval", "0"})
			a := f.dial()
			durable := -1
			for i := range 50 {
				if _, err := a.try("put", fmt.Sprint("key", i), fmt.Sprint("value", i), map[string]any{"sync": true}); err != nil {
					require.ErrorIs(t, err, ipc.CodeReadOnly, "put %d", i)
					break
				}
				durable = i
			}
			require.Less(t, durable, 49, "no sync has failed")
			before := settled(t, log)
			for i := range 20 { // every fsync from here on would end well
				_, err := a.try("put", fmt.Sprint("late", i), "x", map[string]any{"sync": true})
				require.ErrorIs(t, err, ipc.CodeReadOnly)
				_, err = a.try("sync")
				require.ErrorIs(t, err, ipc.CodeReadOnly)
			}
			require.Equal(t, before, settled(t, log), "the sync was tried again")
			a.ask("get", "key0") // reads go on
			code, text := f.http("/readyz")
			require.Equal(t, 503, code, text)
			code, _ = f.http("/livez")
			require.Equal(t, 200, code)
			require.Error(t, f.end(), "the daemon ends as if all were stored")
			require.Contains(t, f.stderr.String(), "input/output error")

			f = startFaulty(t, data, nil, []string{"--io", backend})
			a = f.dial()
			for i := range durable + 1 {
				require.Equal(t, []byte(fmt.Sprint("value", i)), a.ask("get", fmt.Sprint("key", i)), "key %d of %d", i, durable)
			}
			require.NoError(t, f.end())
		})
	}
}

// TestFault_RingBusy: a kernel that has no memory for requests at the moment, or
// is interrupted, again and again, is taken for a broken one.
func TestFault_RingBusy(t *testing.T) {
	needRing(t, "uring")
	for _, errno := range []string{"EAGAIN", "EBUSY", "EINTR"} {
		t.Run(errno, func(t *testing.T) {
			data := filepath.Join(place(t), "data")
			front, log := traced(t, "io_uring_enter:error="+errno+":when=20+3")
			f := startFaulty(t, data, front, []string{"--io", "uring", "--commit-interval", "50ms"})
			a := f.dial()
			value := make([]byte, 50_000)
			for i := range 800 { // more than the memory: writes, and then cold reads
				a.ask("put", fmt.Sprint("key", i), append(value, fmt.Sprint(i)...))
			}
			a.ask("sync")
			for i := 0; i < 800; i += 7 {
				require.Equal(t, append(value, fmt.Sprint(i)...), a.ask("get", fmt.Sprint("key", i)))
			}
			require.NoError(t, f.end())
			t.Logf("%d calls failed", injected(t, log))
			require.Greater(t, injected(t, log), 10)
		})
	}
}

// TestFault_FileSize: a limit on the size of files, which comes with a signal that
// ends programs, takes the daemon with it or is taken for damage.
func TestFault_FileSize(t *testing.T) {
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			needRing(t, backend)
			data := filepath.Join(place(t), "data")
			// A segment is 4 MiB, its file may have 3.
			f := startFaulty(t, data, nil, []string{"--io", backend, "--commit-interval", "0"})
			a := f.dial()
			a.ask("put", "before", "here", map[string]any{"sync": true})
			require.NoError(t, f.end())
			f = startFaulty(t, data, []string{"prlimit", "--fsize=3145728:3145728"}, []string{"--io", backend, "--commit-interval", "0"})
			a = f.dial()
			durable := 0
			var err error
			for i := range 200 {
				if _, err = a.try("put", fmt.Sprint("key", i), make([]byte, 100_000), map[string]any{"sync": true}); err != nil {
					break
				}
				durable = i + 1
			}
			var refused *ipc.Error
			require.ErrorAs(t, err, &refused, "more than a file may hold was stored")
			t.Log(err)
			require.Contains(t, []ipc.Code{ipc.CodeReadOnly, ipc.CodeDiskFull, ipc.CodeIO}, refused.Code, "%v", err)
			a.ask("get", "before")
			_ = f.end()
			require.NotContains(t, f.stderr.String(), "SIGXFSZ")
			require.NotContains(t, f.stderr.String(), "goroutine ")

			f = startFaulty(t, data, nil, []string{"--io", backend})
			a = f.dial()
			a.ask("get", "before")
			for i := range durable {
				require.Len(t, a.ask("get", fmt.Sprint("key", i)), 100_000)
			}
			require.NoError(t, f.end())
		})
	}
}

// TestFault_Freeze: a disk that stands still for a while stops what is in memory,
// has the daemon taken for dead, or leaves somebody waiting for ever when it goes
// on.
func TestFault_Freeze(t *testing.T) {
	for kind, size := range map[loopfs.Kind]int64{loopfs.Ext4: 96 << 20, loopfs.XFS: loopfs.XFSMin} {
		for _, backend := range backends {
			t.Run(string(kind)+","+backend, func(t *testing.T) {
				needRing(t, backend)
				disk := loopfs.ForTest(t, kind, size)
				f := startFaulty(t, filepath.Join(disk.Dir, "data"), nil, []string{"--io", backend, "--commit-interval", "0"})
				a, waiting := f.dial(), f.dial()
				a.ask("put", "hot", "here", map[string]any{"sync": true})
				require.NoError(t, disk.Freeze())
				waiting.send("put", "late", "x", map[string]any{"sync": true})
				began := time.Now()
				for time.Since(began) < 500*time.Millisecond {
					a.ask("get", "hot")
					a.ask("put", "hot", "there")
					code, text := f.http("/livez")
					require.Equal(t, 200, code, text)
				}
				require.NoError(t, waiting.conn.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
				_, err := waiting.conn.Read(make([]byte, 1))
				require.ErrorIs(t, err, os.ErrDeadlineExceeded, "acknowledged on a disk that stands still")
				require.NoError(t, disk.Thaw())
				_, err = waiting.answer("put")
				require.NoError(t, err)
				a.ask("sync")
				require.NoError(t, f.end())
			})
		}
	}
}

// controlGroup makes a group of a controller for a test, of either version of the
// interface, and returns its directory. set are its files with what to write.
func controlGroup(t *testing.T, controller string, v1, v2 map[string]string) string {
	t.Helper()
	base, set := "/sys/fs/cgroup/"+controller, v1
	if text, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		if !strings.Contains(" "+string(text)+" ", strings.Replace(controller, "blkio", "io", 1)) {
			t.Skipf("the controller %s cannot be used on this machine", controller)
		}
		base, set = "/sys/fs/cgroup", v2
	}
	dir := filepath.Join(base, fmt.Sprintf("rskv-test-%d-%s", os.Getpid(), strings.NewReplacer("/", "-", ",", "-").Replace(t.Name())))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Skipf("no control groups of %s on this machine: %v", controller, err)
	}
	t.Cleanup(func() {
		require.Eventually(t, func() bool { return os.Remove(dir) == nil }, patience, 10*time.Millisecond)
	})
	for name, text := range set {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Skipf("the controller %s cannot be used on this machine: %v", controller, err)
		}
	}
	return dir
}

// inGroup is a command that puts itself into a control group first.
func inGroup(dir string) []string {
	return []string{"sh", "-c", `echo $$ >"$1/cgroup.procs" && shift && exec "$@"`, "sh", dir}
}

// TestFault_SlowDisk: a disk that moves little a second makes reads of what is in
// memory wait for it, or has something given up.
func TestFault_SlowDisk(t *testing.T) {
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			needRing(t, backend)
			disk := loopfs.ForTest(t, loopfs.Ext4, 96<<20)
			device, err := disk.Device()
			require.NoError(t, err)
			const rate = 4 << 20
			group := controlGroup(t, "blkio", map[string]string{
				"blkio.throttle.write_bps_device": fmt.Sprintf("%s %d", device, rate),
				"blkio.throttle.read_bps_device":  fmt.Sprintf("%s %d", device, rate),
			}, map[string]string{"io.max": fmt.Sprintf("%s wbps=%d rbps=%d", device, rate, rate)})
			f := startFaulty(t, filepath.Join(disk.Dir, "data"), inGroup(group), []string{"--io", backend, "--commit-interval", "0"})
			a, slow := f.dial(), f.dial()
			a.ask("put", "hot", "here")
			began := time.Now()
			done := make(chan error, 1)
			go func() {
				value := make([]byte, 100_000)
				for i := range 80 { // 8 MB: two seconds of this disk
					if _, err := slow.try("put", fmt.Sprint("key", i), value); err != nil {
						done <- err
						return
					}
				}
				_, err := slow.try("sync")
				done <- err
			}()
			hot := 0
			for waiting := true; waiting; {
				select {
				case err := <-done:
					require.NoError(t, err)
					waiting = false
				default:
					a.ask("get", "hot")
					hot++
				}
			}
			took := time.Since(began)
			require.Greater(t, took, time.Second, "the disk is not slow: nothing was tested")
			require.Greater(t, hot, 50, "reads of what is in memory wait for the disk")
			t.Logf("8 MB and their sync took %v; %d reads meanwhile", took, hot)
			require.NoError(t, f.end())
		})
	}
}

// TestFault_Memory: a share of the memory that is one of the machine's and not of
// the control group's, or a daemon that needs so much besides that the kernel ends
// it.
func TestFault_Memory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) {
			needRing(t, backend)
			const limit = 160 << 20
			text := strconv.Itoa(limit)
			group := controlGroup(t, "memory", map[string]string{"memory.limit_in_bytes": text}, map[string]string{"memory.max": text, "memory.swap.max": "0"})
			f := startFaulty(t, filepath.Join(place(t), "data"), inGroup(group), []string{"--io", backend, "--memory", "50%", "--request-memory", "64MiB"})
			a := f.dial()
			require.Equal(t, "80MiB", a.ask("config").(map[string]any)["memory"], "half of the group's memory")
			value := make([]byte, 100_000)
			values := 4000 // five times the budget
			if testing.Short() {
				values = 1200
			}
			for i := range values {
				a.ask("put", fmt.Sprint("key", i), append(value, fmt.Sprint(i)...))
			}
			a.ask("checkpoint")
			for i := 0; i < values; i += 13 {
				require.Equal(t, append(value, fmt.Sprint(i)...), a.ask("get", fmt.Sprint("key", i)))
			}
			require.NoError(t, f.end(), "the kernel has ended it")
		})
	}
}
