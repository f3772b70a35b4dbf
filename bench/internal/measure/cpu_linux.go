package measure

import (
	"time"

	"golang.org/x/sys/unix"
)

// ThreadCPU is the processor time that the calling thread has taken, in user and
// kernel, to the nanosecond; 0 where the system does not tell. It is for goroutines
// locked to theirs.
func ThreadCPU() time.Duration {
	d, _ := cpuClock(unix.CLOCK_THREAD_CPUTIME_ID)
	return d
}

// processClock reads the processor time clock of a process, whose number is made of
// the process's as clock_getcpuclockid(3) makes it.
func processClock(pid int) (time.Duration, bool) {
	const sched = 2 // CPUCLOCK_SCHED: user and kernel, precisely
	return cpuClock(int32(^pid<<3 | sched))
}

func cpuClock(id int32) (time.Duration, bool) {
	var t unix.Timespec
	if err := unix.ClockGettime(id, &t); err != nil {
		return 0, false
	}
	return time.Duration(t.Nano()), true
}
