package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"rskv/client"
)

func (t *tool) compactCommand() *cobra.Command {
	var until int64
	cmd := &cobra.Command{
		Use:   "compact",
		Short: "copy what is live at the beginning of the log to its end, and give the rest of it back",
		Long: "compact has the daemon go over its log and give back what is not live. The daemon does that by\n" +
			"itself, as the settings live_ratio and disk say; stats tells what a pass would bring (gc_...).",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if until < 0 {
				return fmt.Errorf("--until is %d, must not be below 0", until)
			}
			return t.patient(cmd, "compacting", func(ctx context.Context, c *client.Client) error {
				p, err := c.Compact(ctx, until)
				if err != nil {
					return err
				}
				return t.answer(fmt.Sprintf("%s bytes looked at, %s copied, %s given back in %v; the log begins at %d",
					grouped(p.Scanned), grouped(p.Copied), grouped(p.Freed), p.Took, p.Begin),
					field{"begin", p.Begin}, field{"scanned", p.Scanned}, field{"copied", p.Copied}, field{"freed", p.Freed},
					field{"ms", p.Took.Milliseconds()})
			})
		},
	}
	cmd.Flags().Int64Var(&until, "until", 0, "byte address in the log up to which to go; 0: all that is durable")
	return cmd
}

func (t *tool) tasksCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tasks [stop|start|run NAME]",
		Short: "list what the daemon does in the background; stop, start or run it",
		Long: "tasks lists what the daemon does in the background. A task that is stopped begins nothing by\n" +
			"itself until it is started or the daemon is; run has it do its work once, and waits for that.",
		ValidArgsFunction: t.taskNames(),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return fmt.Errorf("tasks takes nothing, or stop, start or run and a NAME, %d given", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return t.listTasks(cmd)
			}
			act := map[string]func(*client.Client, context.Context, string) error{
				"stop": (*client.Client).StopTask, "start": (*client.Client).StartTask, "run": (*client.Client).RunTask,
			}[args[0]]
			if act == nil {
				return fmt.Errorf("%q is not stop, start or run", args[0])
			}
			return t.patient(cmd, args[0]+" "+args[1], func(ctx context.Context, c *client.Client) error {
				if err := act(c, ctx, args[1]); err != nil {
					return err
				}
				return t.answer("", field{"task", args[1]}, field{"done", args[0]})
			})
		},
	}
}

func (t *tool) listTasks(cmd *cobra.Command) error {
	var list []client.Task
	err := t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
		list, err = c.Tasks(ctx)
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range list {
		state, last, at := "running", "never", ""
		if p.Stopped {
			state = "stopped"
		}
		if !p.Last.IsZero() {
			at = p.Last.UTC().Format(time.RFC3339)
			last = fmt.Sprintf("%s in %v", at, p.Took)
		}
		text := fmt.Sprintf("%s\t%s\t%d runs\tlast %s\tnext: %s", p.Name, state, p.Runs, last, p.Next)
		if p.Err != "" {
			text += "\terror: " + p.Err
		}
		err := t.answer(text, field{"name", p.Name}, field{"state", state}, field{"fixed", p.Fixed}, field{"runs", p.Runs},
			field{"last", at}, field{"us", p.Took.Microseconds()}, field{"error", p.Err}, field{"next", p.Next})
		if err != nil {
			return err
		}
	}
	return nil
}
