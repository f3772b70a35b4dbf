package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"rskv/client"
)

func (t *tool) watchCommand() *cobra.Command {
	var prefix, from string
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "print what is changed in the store, as it becomes durable",
		Long: "watch prints a line for each change until it is interrupted: put, tab, key, tab, value, or del, tab,\n" +
			"key, with tab, newline, carriage return and backslash written \\t \\n \\r \\\\. Of each key it prints the\n" +
			"last state in every commit of the daemon, and after the changes of a commit a line commit, tab,\n" +
			"address. With --from and that address another watch goes on there, also after a restart of the\n" +
			"daemon; this one does so by itself. The first line is such a one, of where it begins. With --hex\n" +
			"--prefix and the keys that are printed are in hexadecimal.\n\n" +
			"It ends with exit code 2 when the daemon has given back log that was not printed yet.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var o client.WatchOptions
			var err error
			if prefix != "" {
				if o.Prefix, err = t.key(prefix); err != nil {
					return err
				}
			}
			switch {
			case from == "begin":
				o.All = true
			case from != "":
				if o.From, err = strconv.ParseInt(from, 0, 64); err != nil || o.From <= 0 {
					return fmt.Errorf("--from %q is neither an address nor \"begin\"", from)
				}
			}
			return t.printChanges(cmd, o)
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "only changes of keys that begin with it")
	cmd.Flags().StringVar(&from, "from", "", "address of a commit that a watch has printed, or \"begin\" for all that the log still has")
	return cmd
}

// printChanges prints changes until it is interrupted, which is how it ends well.
func (t *tool) printChanges(cmd *cobra.Command, o client.WatchOptions) error {
	var c *client.Client
	err := t.call(cmd, func(ctx context.Context, conn *client.Client) error {
		c = conn
		return c.Ping(ctx)
	})
	if err != nil {
		return err
	}
	// Changes come by the thousand, and are of use when their commit has come.
	plain, out := t.stdout, bufio.NewWriterSize(t.stdout, 64<<10)
	t.stdout = out
	defer func() { t.stdout = plain }()
	for change, err := range c.Watch(cmd.Context(), o) {
		if cmd.Context().Err() != nil {
			err = errDone
		}
		if err == nil {
			err = t.printChange(&change)
		}
		if err == nil && change.Kind == client.ChangeCommit {
			err = out.Flush()
		}
		if err != nil {
			_ = out.Flush() // there is an error to be told already
			return err
		}
	}
	return nil
}

func (t *tool) printChange(c *client.Change) error {
	op := field{"op", c.Kind.String()}
	at := field{"address", c.Address}
	if c.Kind == client.ChangeCommit {
		return t.answer(c.Kind.String()+"\t"+strconv.FormatInt(c.Address, 10), op, at)
	}
	text := c.Kind.String() + "\t"
	if t.hex {
		text += hex.EncodeToString(c.Key)
	} else {
		text += string(appendEscaped(nil, c.Key))
	}
	fields := []field{op, at, t.keyField(c.Key)}
	if c.Kind == client.ChangePut {
		text += "\t" + string(appendEscaped(nil, c.Value))
		fields = append(fields, field{"value", c.Value})
	}
	return t.answer(text, fields...)
}
