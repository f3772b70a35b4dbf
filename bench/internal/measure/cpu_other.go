//go:build !linux

package measure

import "time"

// ThreadCPU is the processor time that the calling thread has taken, in user and
// kernel; 0 where the system does not tell. It is for goroutines locked to theirs.
func ThreadCPU() time.Duration { return 0 }

func processClock(int) (time.Duration, bool) { return 0, false }
