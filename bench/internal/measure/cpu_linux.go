package measure

import (
	"syscall"
	"time"
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
