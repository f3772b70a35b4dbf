package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"rskv/client"
	"rskv/ipc"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
)

// job is one import, verify or export.
type job struct {
	t        *tool
	cmd      *cobra.Command
	what     string // "imported", ...
	scanned  bool   // the source has the values of an export, as they are stored
	in       *input
	transfer *transfer
	bar      *progress
	finally  func() error // ends what was written; may be nil

	// Owned by the goroutine that handles answers.
	missing, differ, expired int64
	named                    int // failures named so far; guarded by the transfer's mu
}

// job opens src for a transfer; with content its values are needed.
func (t *tool) job(cmd *cobra.Command, what, src string, files fileFlags, content bool) (*job, error) {
	f, err := parseFormat(files.format)
	if err != nil {
		return nil, err
	}
	in, err := openInput(src, f, t.stdin, []byte(files.prefix), content)
	if err != nil {
		return nil, err
	}
	return t.jobOf(cmd, what, in), nil
}

func (t *tool) jobOf(cmd *cobra.Command, what string, in *input) *job {
	j := &job{t: t, cmd: cmd, what: what, in: in}
	j.transfer = &transfer{failed: j.name}
	return j
}

// run does the transfer, prints its tally on out, and says how it ended.
func (j *job) run(out io.Writer) error {
	if err := j.t.call(j.cmd, func(context.Context, *client.Client) error { return nil }); err != nil {
		return err // no daemon
	}
	begin := time.Now()
	if isTerminal(j.t.stderr) {
		j.bar = startProgress(j.t.stderr, progressOf(j.transfer, j.in))
	}
	err := j.transfer.run(j.cmd.Context(), j.in.pairs)
	j.bar.end()
	if j.finally != nil {
		err = errors.Join(err, j.finally())
	}
	sum := j.transfer.tally(j.what, time.Since(begin))
	sum.Missing, sum.Differ, sum.Expired = j.missing, j.differ, j.expired
	sum.Failed -= j.missing + j.differ
	if perr := j.print(out, sum); perr != nil {
		err = errors.Join(err, perr)
	}
	switch {
	case err != nil:
		return err
	case sum.Failed > 0:
		return fmt.Errorf("%s of the keys were not %s", grouped(sum.Failed), j.what)
	case sum.Missing+sum.Differ > 0:
		return errAbsent
	}
	return nil
}

func (j *job) print(out io.Writer, sum tally) error {
	if !j.t.json {
		_, err := fmt.Fprintln(out, sum)
		return err
	}
	line, err := encodeJSON(sum)
	if err == nil {
		_, err = out.Write(append(line, '\n'))
	}
	return err
}

// name tells of one failure on stderr, up to namedMax of them.
func (j *job) name(err error) {
	j.named++
	text := err.Error()
	if j.named > namedMax {
		return
	}
	if j.named == namedMax {
		text += " (further ones are counted only)"
	}
	j.bar.around(func() { fmt.Fprintln(j.t.stderr, "rskv: "+text) })
}

// put starts a batch of writes. They are sent in order over one connection, so
// of several values of one key the last wins.
func (j *job) put(ctx context.Context, b *batch) (func() ([]answer, error), error) {
	waiting := make([]*client.Future[bool], len(b.pairs))
	for i, p := range b.pairs {
		var opts []client.WriteOption
		if left, ok := p.left(); ok && left > 0 {
			opts = append(opts, client.TTL(left))
		} else if ok {
			continue // an import does not bring back what is gone
		}
		waiting[i] = j.t.conn.PutAsync(ctx, p.key, p.value, opts...)
	}
	return func() ([]answer, error) {
		ctx, cancel := j.t.limited(ctx)
		defer cancel()
		answers := make([]answer, len(waiting))
		for i, w := range waiting {
			if w == nil {
				answers[i].err = errExpired
				continue
			}
			answers[i].found, answers[i].err = w.Wait(ctx)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
		}
		return answers, nil
	}, nil
}

// stored judges the answer to a put.
func (j *job) stored(p pair, a answer) error { return j.judge(p, a.err) }

// judge makes an *itemError of what concerns one key only.
func (j *job) judge(p pair, err error) error {
	if errors.Is(err, errExpired) {
		j.expired++
	} else if err != nil && aboutOne(err) {
		return &itemError{quoted(p.key), err}
	}
	return err
}

// later has read done on a goroutine of its own; the answers wait for it.
func later(read func() ([]answer, error)) func() ([]answer, error) {
	var answers []answer
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		answers, err = read()
	}()
	return func() ([]answer, error) {
		<-done
		return answers, err
	}
}

// mget starts a batch of reads. Their answer as a whole is bounded by the
// protocol; if it would be larger they are fetched one by one.
func (j *job) mget(ctx context.Context, b *batch) (func() ([]answer, error), error) {
	return later(func() ([]answer, error) { return j.fetch(ctx, b.keys()) }), nil
}

// read makes the start of an export: values, where the source has none, and then
// expiries, where they are kept. One that is taken away or set in between is
// missed, as is one of a key that is stored anew.
func (j *job) read(expiries bool) func(context.Context, *batch) (func() ([]answer, error), error) {
	return func(ctx context.Context, b *batch) (func() ([]answer, error), error) {
		return later(func() (answers []answer, err error) {
			if j.scanned {
				for _, p := range b.pairs {
					answers = append(answers, answer{value: p.value, found: true})
				}
			} else if answers, err = j.fetch(ctx, b.keys()); err != nil {
				return nil, err
			}
			if expiries {
				err = j.fetchExpiries(ctx, b, answers)
			}
			return answers, err
		}), nil
	}
}

// fetchExpiries asks for the expiries of what was found. A key that is gone by
// now is expired: without its expiry it would come back for good.
func (j *job) fetchExpiries(ctx context.Context, b *batch, answers []answer) error {
	ask := j.t.conn.NewBatch()
	for _, p := range b.pairs {
		ask.TTL(p.key)
	}
	_, err := within(ctx, j.t, func(ctx context.Context) (struct{}, error) { return struct{}{}, ask.Do(ctx) })
	if err != nil {
		return err
	}
	now := time.Now()
	for i := range answers {
		a := &answers[i]
		if !a.found {
			continue
		}
		left, err := ask.Left(i)
		switch {
		case errors.Is(err, client.ErrNotFound):
			a.err = errExpired
		case err != nil:
			a.err = err
		case left != client.NoExpiry:
			a.expires = now.Add(left)
		}
	}
	return nil
}

// fetch gets keys with one request, or with one each if that is refused for one
// of them or for their size.
func (j *job) fetch(ctx context.Context, keys [][]byte) ([]answer, error) {
	values, err := within(ctx, j.t, func(ctx context.Context) ([][]byte, error) { return j.t.conn.MGet(ctx, keys) })
	answers := make([]answer, len(keys))
	if err == nil {
		for i, v := range values {
			answers[i] = answer{value: v, found: v != nil}
		}
		return answers, nil
	}
	if !aboutOne(err) {
		return nil, err
	}
	for i, key := range keys {
		value, err := within(ctx, j.t, func(ctx context.Context) ([]byte, error) { return j.t.conn.Get(ctx, key) })
		if err != nil && !aboutOne(err) && !errors.Is(err, client.ErrNotFound) {
			return nil, err
		}
		answers[i] = answer{value: value, found: err == nil, err: err}
		if errors.Is(err, client.ErrNotFound) {
			answers[i].err = nil
		}
	}
	return answers, nil
}

var (
	errMissing   = errors.New("missing")
	errDifferent = errors.New("different")
	errExpired   = errors.New("expired") // no failure; not counted among the keys that were moved
)

// compare judges what verify read.
func (j *job) compare(p pair, a answer) error {
	switch {
	case p.expired():
		return j.judge(p, errExpired)
	case a.err != nil:
		return j.judge(p, a.err)
	case !a.found:
		j.missing++
		return &itemError{quoted(p.key), errMissing}
	case !bytes.Equal(a.value, p.value):
		j.differ++
		return &itemError{quoted(p.key), fmt.Errorf("%w: %d bytes stored, %d expected, the first difference at %d",
			errDifferent, len(a.value), len(p.value), firstDifference(a.value, p.value))}
	}
	return nil
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// write judges and writes what export read.
func (j *job) write(out sink, p pair, a answer) error {
	switch {
	case a.err != nil:
		return j.judge(p, a.err)
	case !a.found:
		j.missing++
		return &itemError{quoted(p.key), errMissing}
	}
	return out.write(pair{p.key, a.value, a.expires})
}

// everything is the store itself as a source: every key that begins with prefix,
// with its value.
func (t *tool) everything(cmd *cobra.Command, prefix []byte) (*input, error) {
	var total int64
	err := t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
		total, err = c.Len(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	var done atomic.Int64
	in := &input{close: func() error { return nil }, done: done.Load, pairs: func(yield func(pair, error) bool) {
		err := t.scanPages(cmd, client.ScanOptions{Prefix: prefix, Count: scanKeys}, func(page []client.Pair) error {
			for _, p := range page {
				if !yield(pair{key: p.Key, value: p.Value}, nil) {
					return errDone
				}
				done.Add(1)
			}
			return nil
		})
		if err != nil && !errors.Is(err, errDone) {
			yield(pair{}, err)
		}
	}}
	if len(prefix) == 0 {
		in.total = func() int64 { return total }
	}
	return in, nil
}

// A batch fits one mget.
var _ [ipc.MaxKeys - batchKeys]struct{}
