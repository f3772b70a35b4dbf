package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"rskv/client"
)

// Exit codes of health, for monitoring.
const (
	exitReadOnly    = 1
	exitFull        = 2
	exitUnreachable = 3
)

// exitAs is an error with an exit code of its own.
type exitAs struct {
	code int
	err  error // nil: everything has been said
}

func (e *exitAs) Error() string { return e.err.Error() }
func (e *exitAs) Unwrap() error { return e.err }

func (t *tool) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "tell by the exit code whether the store takes writes",
		Long: "health asks the daemon whether its store takes writes.\n\n" +
			"Exit codes: 0 it does; 1 it is read-only after an I/O error; 2 its disk is full; 3 no answer.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var h client.Health
			err := t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				h, err = c.Health(ctx)
				return err
			})
			if err != nil {
				return &exitAs{exitUnreachable, err}
			}
			text, since := h.State, ""
			if h.State != client.StateOK {
				since = h.Since.UTC().Format(time.RFC3339)
				text = fmt.Sprintf("%s since %s: %s", h.State, since, h.Err)
			}
			if err := t.answer(text, field{"state", h.State}, field{"error", h.Err}, field{"since", since}); err != nil {
				return &exitAs{exitUnreachable, err}
			}
			switch h.State {
			case client.StateOK:
				return nil
			case client.StateFull:
				return &exitAs{exitFull, nil}
			}
			return &exitAs{exitReadOnly, nil}
		},
	}
}
