package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"rskv/client"
)

func (t *tool) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup FILE|-",
		Short: "write a consistent copy of the whole store to a new file, or stdout",
		Long: "backup writes a copy of the store as it is at one moment, while it is being used, and compares\n" +
			"its digest with the daemon's. FILE must not exist; it is there only when all of it is on stable\n" +
			"storage. `rskvd restore FILE DIR` makes a store of it, `rskvd restore --check FILE` reads it back.\n" +
			"--timeout is for each piece.",
		Args: arguments(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[0] == "-" {
				if isTerminal(t.stdout) {
					return errors.New("a backup is not for a terminal")
				}
				b, err := t.backup(cmd.Context(), t.stdout)
				if err == nil {
					t.note(backupText(b))
				}
				return err
			}
			var b client.Backup
			err := newFile(args[0], func(w io.Writer) (err error) {
				b, err = t.backup(cmd.Context(), w)
				return err
			})
			if err != nil {
				return err
			}
			return t.answer(backupText(b), field{"store_id", hex.EncodeToString(b.StoreID[:])}, field{"version", b.Version},
				field{"time", b.Time.UTC().Format(time.RFC3339)}, field{"keys", b.Keys}, field{"bytes", b.Bytes}, field{"sha256", hex.EncodeToString(b.SHA256[:])})
		},
	}
}

func backupText(b client.Backup) string {
	return fmt.Sprintf("version %d of %s, %s keys; %s bytes, sha256 %x", b.Version, b.Time.UTC().Format(time.RFC3339), grouped(b.Keys), grouped(b.Bytes), b.SHA256)
}

// backup writes a backup to w. It gives up when nothing has come for --timeout.
func (t *tool) backup(ctx context.Context, w io.Writer) (client.Backup, error) {
	dog := t.watch(ctx)
	defer dog.stop()
	c, err := t.dial(dog.ctx)
	if err != nil {
		return client.Backup{}, dog.why(err)
	}
	var bar *progress
	var at steps
	if isTerminal(t.stderr) {
		bar = startProgress(t.stderr, at.line)
	}
	b, err := c.Backup(dog.ctx, w, func(done, total int64) {
		dog.alive()
		at.set(done, total)
	})
	bar.end()
	return b, dog.why(err)
}

// watchdog ends a context when nothing has happened for --timeout.
type watchdog struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	timer   *time.Timer // nil: waits for ever
	timeout time.Duration
}

func (t *tool) watch(ctx context.Context) *watchdog {
	d := &watchdog{timeout: t.timeout}
	d.ctx, d.cancel = context.WithCancelCause(ctx)
	if t.timeout > 0 {
		d.timer = time.AfterFunc(t.timeout, func() { d.cancel(noAnswer(t.timeout)) })
	}
	return d
}

func noAnswer(wait time.Duration) error {
	return fmt.Errorf("no answer within %v (--timeout)", wait)
}

// alive says that something has happened.
func (d *watchdog) alive() {
	if d.timer != nil {
		d.timer.Reset(d.timeout)
	}
}

func (d *watchdog) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
	d.cancel(nil)
}

// why is err, or what ended the context.
func (d *watchdog) why(err error) error {
	if err != nil && d.ctx.Err() != nil {
		return context.Cause(d.ctx)
	}
	return err
}

// newFile has write make a file that must not exist yet. It appears under its
// name when it is whole and on stable storage, and not at all if write fails.
func newFile(name string, write func(io.Writer) error) (err error) {
	if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fmt.Errorf("%s exists and is not overwritten", name)
		}
		return err
	}
	dir := filepath.Dir(name)
	part, err := os.CreateTemp(dir, "."+filepath.Base(name)+".part-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil { // that is what counts
			_ = part.Close()
			_ = os.Remove(part.Name())
		}
	}()
	if err := write(part); err != nil {
		return err
	}
	if err := part.Sync(); err != nil {
		return err
	}
	return publish(part, name, dir)
}

// publish gives a file its name. Where there are hard links, one of that name
// that has come up meanwhile is not overwritten.
func publish(part *os.File, name, dir string) error {
	err := os.Link(part.Name(), name)
	switch {
	case err == nil:
		err = os.Remove(part.Name())
	case !errors.Is(err, fs.ErrExist):
		err = os.Rename(part.Name(), name)
	}
	if err != nil {
		return err
	}
	return errors.Join(part.Close(), syncDir(dir))
}

// syncDir brings the names in a directory to stable storage.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
