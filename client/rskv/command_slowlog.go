package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"rskv/client"
)

func (t *tool) slowlogCommand() *cobra.Command {
	var count int
	var reset bool
	cmd := &cobra.Command{
		Use:   "slowlog",
		Short: "list the last slow requests, newest first",
		Long: "slowlog lists the requests that took longer than the daemon's slowlog_threshold, which is off at\n" +
			"first: rskv config slowlog_threshold=10ms",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if count < 0 {
				return errors.New("--count is below 0")
			}
			if reset {
				return t.call(cmd, func(ctx context.Context, c *client.Client) error {
					n, err := c.ResetSlowLog(ctx)
					if err != nil {
						return err
					}
					return t.answer("", field{"forgotten", n})
				})
			}
			var list []client.SlowRequest
			err := t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				list, err = c.SlowLog(ctx, count)
				return err
			})
			if err != nil {
				return err
			}
			for i := range list {
				if err := t.printSlow(&list[i]); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&count, "count", 0, "list that many at most; 0 lists all")
	cmd.Flags().BoolVar(&reset, "reset", false, "empty the slow log")
	return cmd
}

func (t *tool) printSlow(s *client.SlowRequest) error {
	at := s.Time.UTC().Format("2006-01-02T15:04:05.000Z")
	text := fmt.Sprintf("%d\t%s\t%v\twaited: %s\t%s", s.ID, at, s.Took, s.Waited, s.Method)
	if s.Key != nil {
		text += " " + quoted(s.Key)
	}
	if s.Requests > 1 {
		text += fmt.Sprintf(" and %d more", s.Requests-1)
	}
	return t.answer(text+"\t"+who(s.Client, s.UID, s.PID), field{"id", s.ID}, field{"time", at}, field{"us", s.Took.Microseconds()},
		field{"waited", s.Waited}, field{"method", s.Method}, field{"key", s.Key}, field{"requests", s.Requests},
		field{"client", s.Client}, field{"uid", s.UID}, field{"pid", s.PID})
}
