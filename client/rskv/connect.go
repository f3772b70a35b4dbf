package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"rskv/client"
)

// dial returns the connection, making it at its first use.
func (t *tool) dial(ctx context.Context) (*client.Client, error) {
	if t.conn != nil {
		return t.conn, nil
	}
	c, err := client.Dial(ctx, t.socket)
	switch {
	case err != nil && notSocket(t.socket):
		return nil, fmt.Errorf("%s is not a socket (--socket or RSKV_SOCKET names another)", t.socket)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("no daemon listens on %s (--socket or RSKV_SOCKET names another)", t.socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("no permission to connect to %s: its group may (of a service: rskv)", t.socket)
	}
	t.conn = c
	return c, err
}

// notSocket reports whether there is something else at path.
func notSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Type() != fs.ModeSocket
}

// call runs f on the connection, within --timeout.
func (t *tool) call(cmd *cobra.Command, f func(ctx context.Context, c *client.Client) error) error {
	_, err := within(cmd.Context(), t, func(ctx context.Context) (struct{}, error) {
		c, err := t.dial(ctx)
		if err == nil {
			err = f(ctx, c)
		}
		return struct{}{}, err
	})
	return err
}

// limited bounds ctx by --timeout.
func (t *tool) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	if t.timeout <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, t.timeout, noAnswer(t.timeout))
}

// within runs f, one request, within --timeout.
func within[T any](ctx context.Context, t *tool, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := t.limited(ctx)
	defer cancel()
	v, err := f(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // it names --timeout
	}
	return v, err
}

// hangUp closes the connection, if there is one.
func (t *tool) hangUp() {
	if t.conn != nil {
		t.conn.Close()
	}
}

// isFull reports whether a disk here has no room left.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// aboutOne reports whether the daemon refused one key for what it is, so that
// others may still go well.
func aboutOne(err error) bool {
	for _, code := range []error{
		client.ErrBadRequest, client.ErrKeyTooLarge, client.ErrValueTooLarge, client.ErrAnswerTooLarge, client.ErrCorrupt, client.ErrIO,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}
