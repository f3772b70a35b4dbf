package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"rskv/client"
)

// never stands for a key without an expiry.
const never = "never"

func (t *tool) ttlCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ttl KEY",
		Short: "print how long a key has left, or " + never,
		Args:  arguments(1, 1, "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := t.key(args[0])
			if err != nil {
				return err
			}
			var left time.Duration
			err = t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				left, err = c.TTL(ctx, key)
				return err
			})
			switch {
			case errors.Is(err, client.ErrNotFound):
				return t.verdict(false, "absent", t.keyField(key), field{"found", false})
			case err != nil:
				return err
			case left == client.NoExpiry:
				return t.answer(never, t.keyField(key), field{"found", true}, field{"ttl_ms", -1})
			}
			return t.answer(left.String(), t.keyField(key), field{"found", true}, field{"ttl_ms", left.Milliseconds()})
		},
	}
}

func (t *tool) expireCommand() *cobra.Command {
	var sync bool
	cmd := &cobra.Command{
		Use:   "expire KEY DURATION",
		Short: "have a key be gone after a time, as 90s or 1h30m, or " + never,
		Args:  arguments(2, 2, "KEY DURATION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := t.key(args[0])
			if err != nil {
				return err
			}
			after, err := lifetime(args[1])
			if err != nil {
				return err
			}
			return t.decide(cmd, "absent", key, "found", func(ctx context.Context, c *client.Client) (bool, error) {
				if after == 0 {
					return c.Persist(ctx, key, syncOption(sync)...)
				}
				return c.Expire(ctx, key, after, syncOption(sync)...)
			})
		},
	}
	syncFlag(cmd, &sync)
	return cmd
}

// lifetime reads a time to live, 0 for one without end.
func lifetime(text string) (time.Duration, error) {
	if text == never {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is no time to live: want one as 90s or 1h30m, more than 0, or %s", text, never)
	}
	return d, nil
}

// ttlFlag gives a command that stores something the flag --ttl.
func ttlFlag(cmd *cobra.Command, ttl *string) {
	cmd.Flags().StringVar(ttl, "ttl", "", "have the key be gone after that `duration`, as 90s or 1h30m")
}

// ttlOption turns the flag --ttl into the client's option.
func ttlOption(ttl string) ([]client.WriteOption, error) {
	if ttl == "" {
		return nil, nil
	}
	d, err := lifetime(ttl)
	if err != nil || d == 0 {
		return nil, err
	}
	return []client.WriteOption{client.TTL(d)}, nil
}
