// Command rskv talks to the daemon rskvd from a shell.
//
//	rskv put greeting hello        rskv import DIR
//	rskv get greeting              rskv export all.ndjson
//	rskv                           rskv top
//
// Values go from stdin and to stdout byte for byte; a newline is added only on
// a terminal. Exit codes: 0 found or done, 1 absent or the condition was not
// met, 2 an error, a wrong argument included, told in one sentence on stderr;
// health has its own.
//
// main.go turns arguments into an exit code, root.go holds what all commands
// share, and command_*.go the commands; shell.go is rskv without one, on a
// terminal. import, verify and export are one
// pipeline (transfer.go) between a source (source.go: tree.go, lines.go) and
// the daemon or a sink (sink.go).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// Exit codes.
const (
	exitFound  = 0
	exitAbsent = 1 // absent, different, or the condition was not met
	exitError  = 2
)

// errAbsent ends a command with exitAbsent and without a message.
var errAbsent = errors.New("absent")

// errDone ends a command that goes on until it is interrupted, and was.
var errDone = errors.New("done")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program: arguments and streams in, exit code out.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	t := &tool{stdin: stdin, stdout: stdout, stderr: stderr}
	defer t.hangUp()
	return t.execute(ctx, args)
}

// execute does what args say, and returns the exit code.
func (t *tool) execute(ctx context.Context, args []string) int {
	root := t.root()
	root.SetArgs(negativeLast(root, args))
	root.SetIn(t.stdin)
	root.SetOut(t.stdout)
	root.SetErr(t.stderr)
	addDefaults(root)
	err := root.ExecuteContext(ctx)
	code := exitError
	if own, ok := errors.AsType[*exitAs](err); ok {
		if code = own.code; own.err == nil {
			return code
		}
	}
	switch {
	case err == nil, errors.Is(err, errDone):
		return exitFound
	case errors.Is(err, errAbsent):
		return exitAbsent
	case ctx.Err() != nil:
		err = errors.New("interrupted")
	}
	// One sentence: an error of several lines would look like a dump.
	fmt.Fprintln(t.stderr, "rskv: "+strings.Join(strings.Split(strings.TrimSpace(err.Error()), "\n"), "; "))
	return code
}
