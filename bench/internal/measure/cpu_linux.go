package measure

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ThreadCPU is the processor time that the calling thread has taken, in user and
// kernel; 0 where the system does not tell. It is for goroutines locked to theirs.
func ThreadCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_THREAD, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// processClock reads the processor time clock of a process, whose number is made of
// the process's as clock_getcpuclockid(3) makes it.
func processClock(pid int) (time.Duration, bool) {
	const sched = 2 // CPUCLOCK_SCHED: user and kernel, precisely
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|sched), &t); err != nil {
		return 0, false
	}
	return time.Duration(t.Nano()), true
}
