//go:build !linux

package daemon

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// memoryTotal is the machine's memory in bytes.
func memoryTotal() (int64, error) {
	n, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0, fmt.Errorf("ask for the machine's memory: %w", err)
	}
	return int64(n), nil
}
