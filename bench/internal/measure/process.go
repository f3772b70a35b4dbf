package measure

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// errProc is what a system without /proc gives.
var errProc = errors.New("the system does not tell (no /proc)")

// ProcessMemory is the resident memory of another process in bytes.
func ProcessMemory(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, errProc
	}
	kib, ok := statusField(b, "VmRSS")
	if !ok {
		return 0, errProc
	}
	return int64(kib) << 10, nil
}

// ProcessWakes is how often the threads of another process have gone to sleep so
// far, and so how often they have been woken.
func ProcessWakes(pid int) (uint64, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		return 0, errProc
	}
	sum := uint64(0)
	for _, path := range threads {
		// A thread that has just ended does not count.
		if b, err := os.ReadFile(path); err == nil {
			n, _ := statusField(b, "voluntary_ctxt_switches")
			sum += n
		}
	}
	return sum, nil
}

// statusField is the number behind "name:" in a status file of /proc.
func statusField(status []byte, name string) (uint64, bool) {
	for line := range bytes.Lines(status) {
		rest, ok := bytes.CutPrefix(line, []byte(name+":"))
		if !ok {
			continue
		}
		if f := bytes.Fields(rest); len(f) > 0 {
			n, err := strconv.ParseUint(string(f[0]), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
