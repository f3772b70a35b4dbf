package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"rskv/client"
	"rskv/ipc"
)

func (t *tool) pingCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "ping",
		Short: "ask the daemon for a sign of life",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var took time.Duration
			err := t.call(cmd, func(ctx context.Context, c *client.Client) error {
				begin := time.Now()
				err := c.Ping(ctx)
				took = time.Since(begin)
				return err
			})
			if err != nil {
				return err
			}
			return t.answer("pong", field{"pong", true}, field{"us", float64(took.Nanoseconds()) / 1e3})
		},
	}
}

func (t *tool) statsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stats",
		Short: "print the daemon's counters",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var stats map[string]any
			err := t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				stats, err = c.Stats(ctx)
				return err
			})
			if err != nil {
				return err
			}
			return t.printMap(stats)
		},
	}
}

func (t *tool) syncCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sync",
		Short: "return when every write that was answered is on stable storage",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return t.call(cmd, func(ctx context.Context, c *client.Client) error {
				durable, err := c.Sync(ctx)
				if err != nil {
					return err
				}
				return t.answer("", field{"durable", durable})
			})
		},
	}
}

func (t *tool) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print what this program was built from",
		Args:  arguments(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			b := ipc.ReadBuild()
			return t.answer("rskv "+b.String(), field{"version", b.Version}, field{"commit", b.Commit}, field{"protocol", b.Protocol},
				field{"go", b.Go}, field{"platform", b.Platform}, field{"settings", b.Settings})
		},
	}
}
