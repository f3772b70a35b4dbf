package main

import (
	"context"
	"errors"
	"fmt"
	"rskv/client"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// monitorEvery is how often a monitor's requests are fetched.
const monitorEvery = 100 * time.Millisecond

func (t *tool) monitorCommand() *cobra.Command {
	var every int
	cmd := &cobra.Command{
		Use:   "monitor",
		Short: "print the requests of all clients as they come in, or a sample of them",
		Long: "monitor prints a line for each request of any client until it is interrupted: time, method, key,\n" +
			"number of keys, bytes of values, client. What comes faster than it can be printed is dropped, and\n" +
			"counted on stderr. It costs the daemon some time for each request that is printed: see --every.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every < 1 {
				return errors.New("--every is below 1")
			}
			if err := t.call(cmd, func(ctx context.Context, c *client.Client) error { return c.StartMonitor(ctx, every) }); err != nil {
				return err
			}
			return t.follow(cmd)
		},
	}
	cmd.Flags().IntVar(&every, "every", 1, "print one of so many requests")
	return cmd
}

// follow prints what a monitor brings until the command is interrupted, which is
// how it ends well.
func (t *tool) follow(cmd *cobra.Command) error {
	for {
		var list []client.Monitored
		var dropped uint64
		err := t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
			list, dropped, err = c.TakeMonitored(ctx)
			return err
		})
		if cmd.Context().Err() != nil {
			return errDone
		}
		if err != nil {
			return err
		}
		for i := range list {
			if err := t.printMonitored(&list[i]); err != nil {
				return err
			}
		}
		if dropped > 0 {
			fmt.Fprintf(t.stderr, "rskv: %s requests dropped\n", grouped(int64(dropped)))
		}
		select {
		case <-cmd.Context().Done():
			return errDone
		case <-time.After(monitorEvery):
		}
	}
}

func (t *tool) printMonitored(m *client.Monitored) error {
	at := m.Time.UTC().Format("2006-01-02T15:04:05.000000Z")
	text := at + "\t" + m.Method
	if m.Key != nil {
		text += " " + quoted(m.Key)
	}
	if m.Keys > 1 {
		text += fmt.Sprintf(" and %d more", m.Keys-1)
	}
	if m.Bytes > 0 {
		text += fmt.Sprintf(", %s bytes", grouped(int64(m.Bytes)))
	}
	return t.answer(text+"\t"+who(m.Client, m.UID, m.PID), field{"time", at}, field{"method", m.Method}, field{"key", m.Key}, field{"keys", m.Keys},
		field{"bytes", m.Bytes}, field{"client", m.Client}, field{"uid", m.UID}, field{"pid", m.PID})
}

// who names a client.
func who(name string, uid, pid int) string {
	var parts []string
	if name != "" {
		parts = append(parts, quoted([]byte(name)))
	}
	if pid >= 0 {
		parts = append(parts, fmt.Sprintf("pid %d", pid))
	}
	if uid >= 0 {
		parts = append(parts, fmt.Sprintf("uid %d", uid))
	}
	return strings.Join(parts, " ")
}
