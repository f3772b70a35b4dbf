// Command rskv-bench measures rskv beside the programs people would use instead.
//
//	rskv-bench quick           the first figures, in about four minutes
//	rskv-bench quick --smoke   the same, small: does it work at all
//	rskv-bench fio JOB         a job file of fio on rskv; with --vs-fio, fio beside it
//	rskv-bench ycsb [A..F]     YCSB's workloads on the store and the socket
//	rskv-bench run GROUP       by size, hit rate, mix, threads, goroutines, batches; durability, space
//	rskv-bench soak            updates and deletes for a long time, inside budgets
//	rskv-bench demo            the same to watch
//	rskv-bench report A.json   a page with plots
//	rskv-bench compare A B     what has become faster or slower
//	rskv-bench trend A.json    a line for the trend file
//
// main.go turns arguments into an exit code. fio.go runs job files,
// ycsb.go workloads, run.go the groups in categories.go, demo.go shows them; suite.go
// is what these share; report.go looks at what they wrote. quick.go runs groups one after another; each group is a file
// and makes rows:
//
//	engine.go    the engine in process, everything in memory
//	socket.go    rskvd against redis-server, pipelined
//	cold.go      the engine beyond its memory against fio
//	durable.go   put with sync against redis-server's appendfsync always
//	flush.go     pages written against fio
//
// Exit codes: 0 measured, also when a peer is missing or a target missed; 1 a
// wrong answer or an error; 2 a wrong argument.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"rskv/bench/internal/peer"
)

// errUsage marks a wrong argument.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := peer.UntilSignal()
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program without its process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var versus string
	root := &cobra.Command{
		Use:   "rskv-bench",
		Short: "measure rskv beside redis-server and fio",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: %q is not a command (rskv-bench help lists them)", errUsage, args[0])
			}
			if versus != "" {
				return nil
			}
			return fmt.Errorf("%w: no command given (rskv-bench help lists them)", errUsage)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runVersus(cmd.Context(), versus, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	root.Flags().StringVar(&versus, "vs-fio", "", "the same as: fio --vs-fio `JOB`")
	root.AddCommand(quickCommand(), fioCommand(), ycsbCommand(), runCommand(), demoCommand(), soakCommand(),
		reportCommand(), compareCommand(), trendCommand())
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "rskv-bench:", err)
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}
