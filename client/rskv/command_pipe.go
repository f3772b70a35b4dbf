package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
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
	if err := t.call(cmd, func(context.Context, *client.Client) error { return nil }); err != nil {
		return err // no daemon
	}
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	p := &pipeline{t: t, begin: time.Now()}
	if isTerminal(t.stderr) {
		p.bar = startProgress(t.stderr, p.line)
	}
	waiting := make(chan piped, pipeWindow)
	go func() {
		defer close(waiting)
		if err := t.sendLines(ctx, waiting); err != nil {
			cancel(err)
		}
	}()
	p.finish(ctx, waiting, cancel)
	p.bar.end()
	p.sum.Commands = p.answered.Load()
	p.sum.Seconds = time.Since(p.begin).Seconds()
	p.sum.PS = float64(p.sum.Commands) / max(p.sum.Seconds, 1e-9)
	if err := t.printPiped(&p.sum); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if p.sum.Failed > 0 {
		return fmt.Errorf("%s of the commands failed", grouped(p.sum.Failed))
	}
	return nil
}

// pipeline is one run of --pipe, from where its answers are taken.
type pipeline struct {
	t        *tool
	begin    time.Time
	bar      *progress
	answered atomic.Int64 // commands; read by the progress line
	sum      pipeTally
}

// line is the progress line.
func (p *pipeline) line(took time.Duration) string {
	n := p.answered.Load()
	return fmt.Sprintf("%s commands  %s/s", grouped(n), grouped(int64(float64(n)/max(took.Seconds(), 1e-9))))
}

// finish takes the answers of what is waiting until its end, or until ctx ends,
// which an error that all others would have too sees to.
func (p *pipeline) finish(ctx context.Context, waiting <-chan piped, cancel context.CancelCauseFunc) {
	for ctx.Err() == nil {
		var one piped
		more := false
		select {
		case one, more = <-waiting:
		case <-ctx.Done():
		}
		if !more {
			return
		}
		done, err := within(ctx, p.t, one.wait)
		p.answered.Add(1)
		switch {
		case err != nil && !aboutLine(err):
			cancel(err)
		case err != nil:
			p.fail(one.line, err)
		case !done:
			p.sum.NotDone++
		}
	}
}

// fail counts a line that failed, and names the first ones.
func (p *pipeline) fail(line int, err error) {
	if p.sum.Failed++; p.sum.Failed <= namedMax {
		p.bar.around(func() { fmt.Fprintf(p.t.stderr, "rskv: line %d: %v\n", line, err) })
	}
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
			p.wait, err = startLine(ctx, t.conn, args)
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

// aboutLine reports whether an error concerns one line only.
func aboutLine(err error) bool {
	var one *itemError
	return errors.As(err, &one) || aboutOne(err) || errors.Is(err, client.ErrNotInteger) || errors.Is(err, client.ErrOverflow)
}
