package measure

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// SelfCPU is the processor time this process has taken, in user and kernel.
func SelfCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tick is the unit of the times in /proc: USER_HZ is 100 on every system that
// Go runs on.
const tick = 10 * time.Millisecond

// ProcessCPU is the processor time another process has taken, 0 where the
// system does not tell: to the nanosecond where it has a clock for that, else in
// ticks of 10 ms.
func ProcessCPU(pid int) time.Duration {
	if d, ok := processClock(pid); ok {
		return d
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	return parseStat(stat)
}

// parseStat finds utime and stime, the fields 14 and 15. The name in field 2 may
// hold blanks and parentheses, so it counts from the last closing one.
func parseStat(stat []byte) time.Duration {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	user, err1 := strconv.ParseUint(string(fields[11]), 10, 64)
	system, err2 := strconv.ParseUint(string(fields[12]), 10, 64)
	if err1 != nil || err2 != nil {
		return 0
	}
	return time.Duration(user+system) * tick
}
