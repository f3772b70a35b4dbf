package peer

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// UntilSignal returns a context that ends with the first signal that asks this
// process to. A second one ends it at once, and its children with it.
func UntilSignal() (ctx context.Context, stop context.CancelFunc) {
	ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// Command is exec.CommandContext for a program that ends with this process, however
// that ends. On Linux the kernel sees to it (threads of Go stay until the process
// ends); elsewhere only the context does.
func Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = childAttr()
	return cmd
}

// runChild starts a process that does not outlive this one, and calls ended once it
// has ended. It begins and is waited for on one thread, which is there as long as it
// is: to the kernel that thread is the parent, see PR_SET_PDEATHSIG in prctl(2).
func runChild(cmd *exec.Cmd, ended func(error)) error {
	cmd.SysProcAttr = childAttr()
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended(cmd.Wait())
		}
	}()
	return <-started
}
