package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"rskv/client"
)

// rskv --pipe carries out a file of writes as fast as they come: a line each, in
// the words of the shell, sent in order on one connection and answered in
// between. It ends when all are answered.
//
//	stdin -> lines -> started (sent) -> at most pipeWindow waiting -> finish

// pipeWindow is how many writes are under way at a time; their bytes the client
// bounds.
const pipeWindow = 8192

// piped is one line on its way.
type piped struct {
	line int
	wait func(ctx context.Context) (done bool, err error)
}

// pipeTally is the result as it is printed.
type pipeTally struct {
	Commands int64   `json:"commands"`
	NotDone  int64   `json:"not_done"` // a condition was not met, a key was not there
	Failed   int64   `json:"failed"`
	Seconds  float64 `json:"seconds"`
	PS       float64 `json:"commands_per_second"`
}

func (t *tool) pipe(cmd *cobra.Command) error {
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	if err := t.call(cmd, func(context.Context, *client.Client) error { return nil }); err != nil {
		return err // no daemon
	}
	begin := time.Now()
	var sum pipeTally
	var answered atomic.Int64
	var bar *progress
	if isTerminal(t.stderr) {
		bar = startProgress(t.stderr, func(took time.Duration) string {
			n := answered.Load()
			return fmt.Sprintf("%s commands  %s/s", grouped(n), grouped(int64(float64(n)/max(took.Seconds(), 1e-9))))
		})
	}
	named := 0
	fail := func(p piped, err error) {
		sum.Failed++
		if named++; named <= namedMax {
			bar.around(func() { fmt.Fprintf(t.stderr, "rskv: line %d: %v\n", p.line, err) })
		}
	}
	waiting := make(chan piped, pipeWindow)
	go func() {
		defer close(waiting)
		if err := t.sendLines(ctx, waiting); err != nil {
			cancel(err)
		}
	}()
	for ctx.Err() == nil {
		p, more := piped{}, false
		select {
		case p, more = <-waiting:
		case <-ctx.Done():
		}
		if !more {
			break
		}
		done, err := within(ctx, t, p.wait)
		sum.Commands++
		answered.Add(1)
		switch {
		case err != nil && !aboutLine(err):
			cancel(err) // the connection, or the store as a whole: all others would say the same
		case err != nil:
			fail(p, err)
		case !done:
			sum.NotDone++
		}
	}
	bar.end()
	sum.Seconds = time.Since(begin).Seconds()
	sum.PS = float64(sum.Commands) / max(sum.Seconds, 1e-9)
	if err := t.printPiped(&sum); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if sum.Failed > 0 {
		return fmt.Errorf("%s of the commands failed", grouped(sum.Failed))
	}
	return nil
}

func (t *tool) printPiped(sum *pipeTally) error {
	if t.json {
		line, err := encodeJSON(sum)
		if err == nil {
			_, err = t.stdout.Write(append(line, '\n'))
		}
		return err
	}
	text := fmt.Sprintf("%s commands in %.2f s (%s/s)", grouped(sum.Commands), sum.Seconds, grouped(int64(sum.PS)))
	if sum.NotDone > 0 {
		text += fmt.Sprintf(", %s not done", grouped(sum.NotDone))
	}
	if sum.Failed > 0 {
		text += fmt.Sprintf(", %s failed", grouped(sum.Failed))
	}
	_, err := fmt.Fprintln(t.stdout, text)
	return err
}

// sendLines starts what stands on stdin, line by line.
func (t *tool) sendLines(ctx context.Context, waiting chan<- piped) error {
	r := bufio.NewReaderSize(t.stdin, 1<<20)
	var scratch []byte
	for n := 1; ; n++ {
		line, err := readLine(r, scratch, lineMax)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		if len(line) > r.Size() {
			scratch = line
		}
		args, err := splitLine(string(line))
		if err == nil && (len(args) == 0 || strings.HasPrefix(args[0], "#")) {
			continue
		}
		p := piped{line: n}
		if err == nil {
			p.wait, err = t.startLine(ctx, args)
		}
		if err != nil {
			p.wait = func(context.Context) (bool, error) { return false, &itemError{"not understood", err} }
		}
		select {
		case waiting <- p:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// startLine sends one command and returns what waits for its answer.
func (t *tool) startLine(ctx context.Context, args []string) (func(context.Context) (bool, error), error) {
	c, name, args := t.conn, args[0], args[1:]
	key := func() []byte { return []byte(args[0]) }
	want := func(least, most int, usage string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("%s takes %s, %d given", name, usage, len(args))
		}
		return nil
	}
	switch name {
	case "put":
		opts, rest, err := lineOptions(args)
		if args = rest; err == nil {
			err = want(2, 2, "KEY VALUE [--if absent|present] [--ttl DURATION]")
		}
		if err != nil {
			return nil, err
		}
		return c.PutAsync(ctx, key(), []byte(args[1]), opts...).Wait, nil
	case "del":
		if err := want(1, 1, "KEY"); err != nil {
			return nil, err
		}
		return c.DeleteAsync(ctx, key()).Wait, nil
	case "add":
		if err := want(1, 2, "KEY [DELTA]"); err != nil {
			return nil, err
		}
		delta := int64(1)
		if len(args) == 2 {
			var err error
			if delta, err = strconv.ParseInt(args[1], 10, 64); err != nil {
				return nil, fmt.Errorf("DELTA %q is not a 64-bit integer", args[1])
			}
		}
		w := c.AddAsync(ctx, key(), delta)
		return func(ctx context.Context) (bool, error) { _, err := w.Wait(ctx); return true, err }, nil
	case "append":
		if err := want(2, 2, "KEY BYTES"); err != nil {
			return nil, err
		}
		w := c.AppendAsync(ctx, key(), []byte(args[1]))
		return func(ctx context.Context) (bool, error) { _, err := w.Wait(ctx); return true, err }, nil
	case "expire":
		if err := want(2, 2, "KEY DURATION"); err != nil {
			return nil, err
		}
		after, err := lifetime(args[1])
		if err != nil {
			return nil, err
		}
		return c.ExpireAsync(ctx, key(), after).Wait, nil
	case "cas":
		if err := want(3, 3, "KEY OLD NEW"); err != nil {
			return nil, err
		}
		return c.CompareAndSwapAsync(ctx, key(), []byte(args[1]), []byte(args[2])).Wait, nil
	case "sync":
		if err := want(0, 0, "nothing"); err != nil {
			return nil, err
		}
		return func(ctx context.Context) (bool, error) { _, err := c.Sync(ctx); return true, err }, nil
	}
	return nil, fmt.Errorf("%q is not put, del, add, append, cas, expire or sync", name)
}

// lineOptions takes --if and --ttl from the words of a put.
func lineOptions(args []string) (opts []client.WriteOption, rest []string, err error) {
	var condition, ttl string
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "--if" && i+1 < len(args):
			i++
			condition = args[i]
		case args[i] == "--ttl" && i+1 < len(args):
			i++
			ttl = args[i]
		default:
			rest = append(rest, args[i])
		}
	}
	opts, err = conditions(condition, ttl, false)
	return opts, rest, err
}

// aboutLine reports whether an error concerns one line only.
func aboutLine(err error) bool {
	var one *itemError
	return errors.As(err, &one) || aboutOne(err) || errors.Is(err, client.ErrNotInteger) || errors.Is(err, client.ErrOverflow)
}
