package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"rskv/client"
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
				text := fmt.Sprintf("%d\t%s\t%s\tlog %d to %d\t%s bytes", p.Version, at, p.Kind, p.Begin, p.Tail, grouped(int64(p.Bytes)))
				if len(p.Cookie) > 0 {
					text += fmt.Sprintf("\t%q", p.Cookie)
				}
				err := t.answer(text, field{"version", p.Version}, field{"kind", p.Kind}, field{"time", at},
					field{"begin", p.Begin}, field{"tail", p.Tail}, field{"bytes", p.Bytes}, field{"cookie", p.Cookie})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}
