//go:build !linux

package peer

import "syscall"

func childAttr() *syscall.SysProcAttr { return nil }
