package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"rskv/client"
	"rskv/ipc"
)

// fileFlags are the flags that import, verify and export share.
type fileFlags struct {
	format string
	prefix string
}

func (f *fileFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.format, "format", "", formats+"; guessed when not given")
	cmd.Flags().StringVar(&f.prefix, "prefix", "", "what keys have in front of the path of a file in a tree, or of a key in Redis")
}

const formatsHelp = "A tree is a directory: the path of each file below it, with slashes, is a key, its content the\n" +
	"value; symbolic links are followed. In NDJSON each line is {\"key\":...,\"value\":...}, with\n" +
	"key_base64 and value_base64 for bytes that are not UTF-8. In TSV it is key, tab, value, with tab,\n" +
	"newline, carriage return and backslash written \\t \\n \\r \\\\, and \\xHH understood.\n\n" +
	"redis://[USER:PASSWORD@]HOST[:PORT][/DB] and redis+unix:///SOCKET[?db=DB] are Redis servers, of which\n" +
	"keys with strings are taken; those of other types are named and counted. Numbers stay text."

func (t *tool) importCommand() *cobra.Command {
	var files fileFlags
	var check, sync bool
	cmd := &cobra.Command{
		Use:   "import SRC",
		Short: "store a directory tree, NDJSON, TSV, or what a Redis server holds",
		Long: "import stores what SRC holds: a directory, a file, - for stdin, or a Redis server. What cannot be read or\n" +
			"stored is named and counted, the rest goes on, and the exit code is 2.\n\n" + formatsHelp,
		Args: arguments(1, 1, "SRC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if check && args[0] == "-" {
				return errors.New("--verify reads SRC twice, which stdin cannot be")
			}
			j, err := t.job(cmd, "imported", args[0], files, true)
			if err != nil {
				return err
			}
			defer j.in.close()
			j.transfer.start, j.transfer.handle = j.put, stored
			if err := j.run(t.stdout); err != nil {
				return err
			}
			if sync {
				if err := t.call(cmd, func(ctx context.Context, c *client.Client) error { _, err := c.Sync(ctx); return err }); err != nil {
					return err
				}
			}
			if check {
				return t.verify(cmd, args[0], files)
			}
			return nil
		},
	}
	files.add(cmd)
	cmd.Flags().BoolVar(&check, "verify", false, "then read everything back and compare")
	cmd.Flags().BoolVar(&sync, "sync", false, "return only when all of it is on stable storage")
	return cmd
}

func (t *tool) verifyCommand() *cobra.Command {
	var files fileFlags
	cmd := &cobra.Command{
		Use:   "verify SRC",
		Short: "compare what import would store with what is stored",
		Long: "verify reads every key of SRC back and compares it byte for byte with its value in SRC. The\n" +
			"exit code is 1 if a key is missing or different. Of a key that stands in SRC several times\n" +
			"only the last value can be the same.\n\n" + formatsHelp,
		Args: arguments(1, 1, "SRC"),
		RunE: func(cmd *cobra.Command, args []string) error { return t.verify(cmd, args[0], files) },
	}
	files.add(cmd)
	return cmd
}

// verify compares src with the store.
func (t *tool) verify(cmd *cobra.Command, src string, files fileFlags) error {
	j, err := t.job(cmd, "verified", src, files, true)
	if err != nil {
		return err
	}
	defer j.in.close()
	j.transfer.start, j.transfer.handle = j.mget, j.compare
	return j.run(t.stdout)
}

func (t *tool) exportCommand() *cobra.Command {
	var files fileFlags
	var like, from string
	cmd := &cobra.Command{
		Use:   "export DST",
		Short: "write keys into a directory tree, NDJSON, TSV or a Redis server",
		Long: "export writes keys with their values to DST: a directory, a file, - for stdout, or a Redis server. Which keys,\n" +
			"it has to be told: --like SRC takes those of a tree or file as import would, --keys-from FILE\n" +
			"those of a list, one a line (- is stdin; with --hex in hexadecimal). A key that is absent, or\n" +
			"cannot be a file name, is named and counted.\n\n" + formatsHelp,
		Args: arguments(1, 1, "DST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (like == "") == (from == "") {
				return errors.New("export needs either --like SRC or --keys-from FILE to know the keys")
			}
			j, err := t.exportJob(cmd, like, from, files)
			if err != nil {
				return err
			}
			defer j.in.close()
			f, err := parseFormat(files.format)
			if err != nil {
				return err
			}
			out, err := openOutput(args[0], f, t.stdout, []byte(files.prefix))
			if err != nil {
				return err
			}
			j.transfer.start = j.mget
			j.transfer.handle = func(p pair, a answer) error { return j.write(out, p, a) }
			j.finally = out.close
			report := t.stdout
			if args[0] == "-" {
				report = t.stderr // stdout is for the data
			}
			return j.run(report)
		},
	}
	files.add(cmd)
	cmd.Flags().StringVar(&like, "like", "", "export the keys that import SRC would store")
	cmd.Flags().StringVar(&from, "keys-from", "", "export the keys listed in a file")
	return cmd
}

// exportJob prepares an export of the keys of like or, if that is empty, of the
// list from.
func (t *tool) exportJob(cmd *cobra.Command, like, from string, files fileFlags) (*job, error) {
	if like != "" {
		files.format = "" // --format is about DST
		return t.job(cmd, "exported", like, files, false)
	}
	r, closeList := t.stdin, func() error { return nil }
	if from != "-" {
		file, err := os.Open(from)
		if err != nil {
			return nil, err
		}
		r, closeList = file, file.Close
	}
	return t.jobOf(cmd, "exported", &input{pairs: keysOf(r, t.hex), close: closeList}), nil
}

// job is one import, verify or export.
type job struct {
	t        *tool
	cmd      *cobra.Command
	what     string // "imported", ...
	in       *input
	transfer *transfer
	bar      *progress
	finally  func() error // ends what was written; may be nil

	// Owned by the goroutine that handles answers.
	missing, differ int64
	named           int // failures named so far; guarded by the transfer's mu
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
	sum.Missing, sum.Differ = j.missing, j.differ
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
		waiting[i] = j.t.conn.PutAsync(ctx, p.key, p.value)
	}
	return func() ([]answer, error) {
		ctx, cancel := j.t.limited(ctx)
		defer cancel()
		answers := make([]answer, len(waiting))
		for i, w := range waiting {
			answers[i].found, answers[i].err = w.Wait(ctx)
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
		}
		return answers, nil
	}, nil
}

// stored judges the answer to a put.
func stored(p pair, a answer) error { return judge(p, a.err) }

// judge makes an *itemError of what concerns one key only.
func judge(p pair, err error) error {
	if err != nil && aboutOne(err) {
		return &itemError{quoted(p.key), err}
	}
	return err
}

// mget starts a batch of reads. Their answer as a whole is bounded by the
// protocol; if it would be larger they are fetched one by one.
func (j *job) mget(ctx context.Context, b *batch) (func() ([]answer, error), error) {
	keys := make([][]byte, len(b.pairs))
	for i, p := range b.pairs {
		keys[i] = p.key
	}
	var answers []answer
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		answers, err = j.fetch(ctx, keys)
	}()
	return func() ([]answer, error) {
		<-done
		return answers, err
	}, nil
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
)

// compare judges what verify read.
func (j *job) compare(p pair, a answer) error {
	switch {
	case a.err != nil:
		return judge(p, a.err)
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
		return judge(p, a.err)
	case !a.found:
		j.missing++
		return &itemError{quoted(p.key), errMissing}
	}
	return out.write(p.key, a.value)
}

// A batch fits one mget.
var _ [ipc.MaxKeys - batchKeys]struct{}
