package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// An operator who frees space or stops compaction for a while must be told what
// really happened: the fake would agree with anything.
func TestRskvd_CompactAndTasks(t *testing.T) {
	program, work := buildDaemon(t), t.TempDir()
	socket := filepath.Join(work, "s")
	d := startDaemon(t, program, filepath.Join(work, "data"), socket)
	for _, size := range []int{3 << 20, 2 << 20, 1 << 20} {
		require.Equal(t, 0, rskv(t, socket, noise(1, size), "put", "--sync", "key").code)
	}
	r := rskv(t, socket, "", "compact")
	require.Equal(t, 0, r.code, r.stderr)
	require.Regexp(t, `^[56],\d{3},\d{3} bytes looked at, [\d,]+ copied, [\d,]+ given back in \d\S+; the log begins at [56]\d{6}\n$`, r.stdout)
	require.Equal(t, noise(1, 1<<20), rskv(t, socket, "", "get", "key").stdout)

	r = rskv(t, socket, "", "tasks")
	require.Greater(t, strings.Count(r.stdout, "\n"), 5, r.stdout)
	require.Regexp(t, `(?m)^compact\trunning\t1 runs\tlast \S+Z in \S+s\tnext: the log is short$`, r.stdout)
	require.Equal(t, result{0, "", ""}, rskv(t, socket, "", "tasks", "stop", "compact"))
	require.Contains(t, rskv(t, socket, "", "tasks", "--json").stdout, `{"name":"compact","state":"stopped","fixed":false,"runs":1,`)
	require.Equal(t, 0, rskv(t, socket, "", "tasks", "start", "compact").code)
	require.Equal(t, 0, rskv(t, socket, "", "tasks", "run", "checkpoint").code)
	require.Regexp(t, `(?m)^checkpoint\trunning\t1 runs\t`, rskv(t, socket, "", "tasks").stdout)
	r = rskv(t, socket, "", "tasks", "stop", "commit")
	require.Equal(t, 2, r.code)
	require.Contains(t, r.stderr, "nothing would become durable")
	require.Contains(t, rskv(t, socket, "", "tasks", "run", "nonsense").stderr, "no such background task")

	require.Contains(t, rskv(t, socket, "", "config", "live_ratio=0.25", "disk=1GiB", "memory=80MiB").stdout, "live_ratio 0.25\n")
	require.Contains(t, rskv(t, socket, "", "stats").stdout, "engine_disk_budget 1073741824\n")
	require.Contains(t, rskv(t, socket, "", "stats").stdout, "engine_memory 83886080\n")
	r = rskv(t, socket, "", "config", "disk=1MiB")
	require.Equal(t, 2, r.code)
	require.Contains(t, r.stderr, "has no room for 8 segments")
	d.stop(t)
}
