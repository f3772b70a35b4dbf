package daemon

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// memoryTotal is the memory this process may use, in bytes: the machine's, or
// the limit of the control group it runs in when that is lower.
func memoryTotal() (int64, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("ask for the machine's memory: %w", err)
	}
	total := int64(info.Totalram) * int64(info.Unit)
	if limit, ok := cgroupLimit(os.DirFS("/")); ok {
		total = min(total, limit)
	}
	return total, nil
}

// cgroupLimit is the lowest memory limit on the way from this process's
// control group to the root, for both versions of the interface. ok is false
// when there is none.
func cgroupLimit(root fs.FS) (limit int64, ok bool) {
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		// hierarchy-ID:controllers:path; version 2 has ID 0 and no controllers.
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		base, file := "sys/fs/cgroup", "memory.max"
		if part[1] != "" {
			base, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		if part[1] != "" && !strings.Contains(","+part[1]+",", ",memory,") {
			continue
		}
		for dir := path.Clean("/" + part[2]); ; dir = path.Dir(dir) {
			if n, found := readLimit(root, path.Join(base, dir, file)); found && (!ok || n < limit) {
				limit, ok = n, true
			}
			if dir == "/" {
				break
			}
		}
	}
	return limit, ok
}

// readLimit reads one limit; "max" and a missing file are no limit.
func readLimit(root fs.FS, name string) (int64, bool) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil && n > 0
}
