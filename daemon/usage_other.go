//go:build !linux

package daemon

import "time"

// usage is what the process takes of the machine.
type usage struct {
	resident    int64 // bytes
	descriptors int
	cpu         time.Duration
}

// processUsage: not known on this system.
func processUsage() (usage, bool) { return usage{}, false }
