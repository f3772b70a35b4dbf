//go:build linux

// Package mounts ends what killed test runs have left mounted.
package mounts

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// RemoveStale unmounts, with the flags, the file systems of processes that are gone, or
// want to go. owner says whose a mount is, by what is mounted there, and whether it is
// ours at all. Nothing here looks below a mount: one that hangs would hang that as well.
func RemoveStale(flags int, owner func(source string) (pid string, ours bool)) {
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		pid, ours := owner(fields[0])
		if !ours {
			continue
		}
		// Of a process that goes the memory goes first, and the command line with it.
		if command, err := os.ReadFile("/proc/" + pid + "/cmdline"); err != nil || len(command) == 0 {
			_ = unix.Unmount(fields[1], flags)
		}
	}
}
