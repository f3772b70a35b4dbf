package daemon

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what the process takes of the machine.
type usage struct {
	resident    int64 // bytes
	descriptors int
	cpu         time.Duration
}

// processUsage asks the kernel. false: it does not say.
func processUsage() (usage, bool) {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return usage{}, false
	}
	fields := bytes.Fields(text)
	if len(fields) < 2 {
		return usage{}, false
	}
	pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
	if err != nil {
		return usage{}, false
	}
	descriptors, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return usage{}, false
	}
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return usage{}, false
	}
	return usage{
		resident: pages * int64(os.Getpagesize()), descriptors: len(descriptors) - 1, // one is the directory itself
		cpu: time.Duration(r.Utime.Nano() + r.Stime.Nano()),
	}, true
}
