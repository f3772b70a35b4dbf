package peer

import "syscall"

// childAttr has the kernel end a process when its parent has ended. SIGTERM, so that
// it may clean up.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }
