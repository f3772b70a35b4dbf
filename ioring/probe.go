//go:build unix

package ioring

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Probe says whether this process may use io_uring, and if not, why, in one
// sentence. It cannot know about the file system: Open finds that out.
func Probe() (ok bool, why string) {
	if err := probeKernel(); err != nil {
		return false, err.Error()
	}
	return true, "io_uring works here"
}

// explainSetup turns the error of making a ring into a sentence an administrator
// can act on.
func explainSetup(err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return errors.New("this kernel has no io_uring, or a seccomp filter hides it")
	case errors.Is(err, unix.EPERM):
		return errors.New(explainForbidden(readSysctl("/proc/sys/kernel/io_uring_disabled")))
	case errors.Is(err, unix.ENOMEM):
		return errors.New("no locked memory left for the ring (RLIMIT_MEMLOCK, shared by all processes of this user)")
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fmt.Errorf("no file descriptor left for the ring: %w", err)
	}
	return fmt.Errorf("the ring cannot be made: %w", err)
}

// explainForbidden tells the sysctl from a seccomp filter; both say EPERM.
func explainForbidden(sysctl string) string {
	switch sysctl {
	case "1":
		return "sysctl kernel.io_uring_disabled=1 allows io_uring to privileged processes only"
	case "2":
		return "sysctl kernel.io_uring_disabled=2 switches io_uring off"
	}
	return "a seccomp filter or security module forbids io_uring, as most containers do"
}

func readSysctl(path string) string {
	text, _ := os.ReadFile(path) // absent before Linux 6.6
	return strings.TrimSpace(string(text))
}
