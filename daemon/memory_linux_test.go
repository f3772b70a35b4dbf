package daemon

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

// TestCgroupLimit: a limit of the control group that is not seen, so that a
// share of the memory is more than there is.
func TestCgroupLimit(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  int64
	}{
		"version 2": {fstest.MapFS{
			"proc/self/cgroup": file("0::/a/b\n"), "sys/fs/cgroup/a/b/memory.max": file("max\n"),
			"sys/fs/cgroup/a/memory.max": file("1000\n"), "sys/fs/cgroup/memory.max": file("2000\n"),
		}, 1000},
		"version 2 in a namespace": {fstest.MapFS{
			"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("3000\n"),
		}, 3000},
		"version 1": {fstest.MapFS{
			"proc/self/cgroup": file("5:cpu,memory:/x\n4:cpuset:/y\n0::/\n"),
			"sys/fs/cgroup/memory/x/memory.limit_in_bytes": file("4000"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes":   file("9223372036854771712"),
		}, 4000},
		"none":       {fstest.MapFS{"proc/self/cgroup": file("0::/a\n")}, 0},
		"no cgroups": {fstest.MapFS{}, 0},
	} {
		limit, ok := cgroupLimit(c.files)
		require.Equal(t, c.want, limit, name)
		require.Equal(t, c.want > 0, ok, name)
	}
	total, err := memoryTotal()
	require.NoError(t, err)
	require.Greater(t, total, int64(memoryMin))
}
