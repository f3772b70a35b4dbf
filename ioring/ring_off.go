//go:build unix && !(giouring && linux)

package ioring

import (
	"errors"
	"runtime"
)

// probeKernel says why this binary has no io_uring.
func probeKernel() error {
	if runtime.GOOS != "linux" {
		return errors.New("io_uring exists on Linux only")
	}
	return errors.New("built without the giouring tag")
}

func newRing(*disk, int) (backend, string, error) { return nil, "", probeKernel() }
