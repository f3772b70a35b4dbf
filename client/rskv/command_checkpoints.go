package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"rskv/client"
	"rskv/ipc"
)

func (t *tool) checkpointsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "checkpoints",
		Short: "list the checkpoints that are kept, newest first",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []client.CheckpointInfo
			err := t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				list, err = c.Checkpoints(ctx)
				return err
			})
			if err != nil {
				return err
			}
			for _, p := range list {
				at := p.Time.UTC().Format(time.RFC3339)
				text := fmt.Sprintf("%d\t%s\t%s\tlog %d to %d\t%s keys\t%s bytes in %v",
					p.Version, at, p.Kind, p.Begin, p.Tail, grouped(int64(p.Keys)), grouped(int64(p.Bytes)), p.Took)
				if len(p.Cookie) > 0 {
					text += fmt.Sprintf("\t%q", p.Cookie)
				}
				err := t.answer(text, field{"version", p.Version}, field{"kind", p.Kind}, field{"time", at},
					field{"begin", p.Begin}, field{"tail", p.Tail}, field{"keys", p.Keys}, field{"bytes", p.Bytes},
					field{"ms", p.Took.Milliseconds()}, field{"cookie", p.Cookie})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (t *tool) checkpointCommand() *cobra.Command {
	var kind, cookie string
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "take a checkpoint and return when it is on stable storage",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var o client.CheckpointOptions
			i := slices.Index(checkpointKinds(), kind)
			if i < 0 {
				return fmt.Errorf("--kind is %q, must be full, log, index or snapshot", kind)
			}
			if len(cookie) > ipc.MaxCookie {
				return fmt.Errorf("--cookie has %d bytes, the limit is %d", len(cookie), ipc.MaxCookie)
			}
			o.Kind = kindsOfCheckpoint[i]
			if cookie != "" {
				o.Cookie = []byte(cookie)
			}
			return t.patient(cmd, "taking a checkpoint", func(ctx context.Context, c *client.Client) error {
				p, err := c.Checkpoint(ctx, o)
				if err != nil {
					return err
				}
				return t.answer(fmt.Sprintf("checkpoint %d, %s bytes in %v", p.Version, grouped(int64(p.Bytes)), p.Took),
					field{"version", p.Version}, field{"durable", p.Durable}, field{"bytes", p.Bytes}, field{"ms", p.Took.Milliseconds()})
			})
		},
	}
	cmd.Flags().StringVar(&kind, "kind", ipc.CheckpointFull.String(), "full, log, index or snapshot")
	cmd.Flags().StringVar(&cookie, "cookie", "", "bytes to keep with it")
	return cmd
}

// kindsOfCheckpoint are what --kind can be.
var kindsOfCheckpoint = []ipc.CheckpointKind{ipc.CheckpointFull, ipc.CheckpointLog, ipc.CheckpointIndex, ipc.CheckpointSnapshot}

func checkpointKinds() (names []string) {
	for _, k := range kindsOfCheckpoint {
		names = append(names, k.String())
	}
	return names
}
