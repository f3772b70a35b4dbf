package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"rskv/client"
	"rskv/ipc"
)

func (t *tool) getCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "get KEY",
		Short: "print the value of a key, byte for byte",
		Args:  arguments(1, 1, "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := t.key(args[0])
			if err != nil {
				return err
			}
			var value []byte
			err = t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				value, err = c.Get(ctx, key)
				return err
			})
			if errors.Is(err, client.ErrNotFound) {
				return t.verdict(false, "absent", t.keyField(key), field{"found", false})
			}
			if err != nil {
				return err
			}
			if t.json {
				return t.answer("", t.keyField(key), field{"found", true}, field{"value", value})
			}
			return t.printValue(value)
		},
	}
}

// printValue writes a value as it is, and a newline after it on a terminal.
func (t *tool) printValue(value []byte) error {
	_, err := t.stdout.Write(value)
	if err == nil && isTerminal(t.stdout) {
		_, err = fmt.Fprintln(t.stdout)
	}
	return err
}

// verdict ends a command that was answered yes or no: exit code 0 or 1.
func (t *tool) verdict(yes bool, no string, fields ...field) error {
	if err := t.answer("", fields...); err != nil {
		return err
	}
	if !yes {
		t.note(no)
		return errAbsent
	}
	return nil
}

func (t *tool) putCommand() *cobra.Command {
	var condition, ttl string
	var sync bool
	cmd := &cobra.Command{
		Use:   "put KEY [VALUE]",
		Short: "store a value; without VALUE, or with -, it is read from stdin",
		Args:  arguments(1, 2, "KEY [VALUE]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := t.key(args[0])
			if err != nil {
				return err
			}
			opts, err := conditions(condition, ttl, sync)
			if err != nil {
				return err
			}
			value, err := valueFrom(args[1:], t.stdin)
			if err != nil {
				return err
			}
			return t.decide(cmd, "not stored: the key is not "+condition, key, "stored",
				func(ctx context.Context, c *client.Client) (bool, error) { return c.Put(ctx, key, value, opts...) })
		},
	}
	cmd.Flags().StringVar(&condition, "if", "", "store only if the key is `absent`, or only if it is present")
	ttlFlag(cmd, &ttl)
	syncFlag(cmd, &sync)
	return cmd
}

// decide asks a question about one key and ends the command by the answer.
func (t *tool) decide(cmd *cobra.Command, no string, key []byte, name string, ask func(context.Context, *client.Client) (bool, error)) error {
	var yes bool
	err := t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
		yes, err = ask(ctx, c)
		return err
	})
	if err != nil {
		return err
	}
	return t.verdict(yes, no, t.keyField(key), field{name, yes})
}

// conditions turns the flags of a put into the client's options.
func conditions(condition, ttl string, sync bool) ([]client.WriteOption, error) {
	opts, err := ttlOption(ttl)
	if err != nil {
		return nil, err
	}
	opts = append(opts, syncOption(sync)...)
	switch condition {
	case "":
	case "absent":
		opts = append(opts, client.IfAbsent)
	case "present":
		opts = append(opts, client.IfPresent)
	default:
		return nil, fmt.Errorf("--if is %q, must be absent or present", condition)
	}
	return opts, nil
}

func syncOption(sync bool) []client.WriteOption {
	if sync {
		return []client.WriteOption{client.Sync}
	}
	return nil
}

// syncFlag gives a command that writes the flag --sync.
func syncFlag(cmd *cobra.Command, sync *bool) {
	cmd.Flags().BoolVar(sync, "sync", false, "wait until it is on stable storage")
}

func (t *tool) existsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "exists KEY",
		Short: "tell by the exit code whether a key is there",
		Args:  arguments(1, 1, "KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := t.key(args[0])
			if err != nil {
				return err
			}
			return t.decide(cmd, "absent", key, "found",
				func(ctx context.Context, c *client.Client) (bool, error) { return c.Exists(ctx, key) })
		},
	}
}

func (t *tool) delCommand() *cobra.Command {
	var blind, sync bool
	cmd := &cobra.Command{
		Use:   "del KEY...",
		Short: "delete keys; exit code 1 if one of them was not there",
		Args:  arguments(1, ipc.MaxKeys, "KEY..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := t.keys(args)
			if err != nil {
				return err
			}
			opts := syncOption(sync)
			if blind {
				opts = append(opts, client.Blind)
			}
			var n int
			err = t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				n, err = c.MDelete(ctx, keys, opts...)
				return err
			})
			if err != nil {
				return err
			}
			if blind {
				return t.answer("", field{"keys", len(keys)})
			}
			return t.verdict(n == len(keys), fmt.Sprintf("%d of %d were there", n, len(keys)),
				field{"keys", len(keys)}, field{"deleted", n})
		},
	}
	cmd.Flags().BoolVar(&blind, "blind", false, "do not ask whether they were there, which may read the disk")
	syncFlag(cmd, &sync)
	return cmd
}

func (t *tool) casCommand() *cobra.Command {
	var absent, remove, sync bool
	var ttl string
	cmd := &cobra.Command{
		Use:   "cas KEY [OLD] [NEW]",
		Short: "replace OLD by NEW if OLD is what is stored; exit code 1 if it is not",
		Long: "cas replaces OLD by NEW if OLD is what is stored, else it ends with exit code 1.\n\n" +
			"With --absent there is no OLD: the key must not be there. With --delete there is no NEW:\n" +
			"the key is deleted. One of the two may be -, and is read from stdin.",
		Args: func(_ *cobra.Command, args []string) error { return casArguments(args, absent, remove) },
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := t.key(args[0])
			if err != nil {
				return err
			}
			// nil stands for "absent" to the client, an empty value does not.
			var source, target []byte
			if !absent {
				if source, err = valueFrom(args[1:2], t.stdin); err != nil {
					return err
				}
			}
			if !remove {
				if target, err = valueFrom(args[len(args)-1:], t.stdin); err != nil {
					return err
				}
			}
			opts, err := ttlOption(ttl)
			if err != nil {
				return err
			}
			opts = append(opts, syncOption(sync)...)
			return t.decide(cmd, "not swapped", key, "swapped", func(ctx context.Context, c *client.Client) (bool, error) {
				return c.CompareAndSwap(ctx, key, source, target, opts...)
			})
		},
	}
	cmd.Flags().BoolVar(&absent, "absent", false, "the key must not be there (no OLD)")
	cmd.Flags().BoolVar(&remove, "delete", false, "delete the key (no NEW)")
	ttlFlag(cmd, &ttl)
	syncFlag(cmd, &sync)
	return cmd
}

// casArguments checks the arguments of cas, whose number depends on its flags.
func casArguments(args []string, absent, remove bool) error {
	want, usage := 3, "KEY OLD NEW"
	switch {
	case absent && remove:
		return errors.New("cas takes --absent or --delete, not both")
	case absent:
		want, usage = 2, "KEY NEW with --absent"
	case remove:
		want, usage = 2, "KEY OLD with --delete"
	}
	if len(args) != want {
		return fmt.Errorf("cas takes %s, %d given", usage, len(args))
	}
	if want == 3 && args[1] == "-" && args[2] == "-" {
		return errors.New("cas can read OLD or NEW from stdin, not both")
	}
	return nil
}

func (t *tool) addCommand() *cobra.Command {
	var sync bool
	var ttl string
	cmd := &cobra.Command{
		Use:   "add KEY [DELTA]",
		Short: "add DELTA, 1 by default, to a counter and print the sum",
		Args:  arguments(1, 2, "KEY [DELTA]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := t.key(args[0])
			if err != nil {
				return err
			}
			delta := int64(1)
			if len(args) > 1 {
				if delta, err = strconv.ParseInt(args[1], 10, 64); err != nil {
					return fmt.Errorf("DELTA %q is not a 64-bit integer", args[1])
				}
			}
			opts, err := ttlOption(ttl)
			if err != nil {
				return err
			}
			opts = append(opts, syncOption(sync)...)
			var sum int64
			err = t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				sum, err = c.Add(ctx, key, delta, opts...)
				return err
			})
			if err != nil {
				return err
			}
			return t.answer(strconv.FormatInt(sum, 10), t.keyField(key), field{"sum", sum})
		},
	}
	ttlFlag(cmd, &ttl)
	syncFlag(cmd, &sync)
	return cmd
}

func (t *tool) appendCommand() *cobra.Command {
	var sync bool
	cmd := &cobra.Command{
		Use:   "append KEY [BYTES]",
		Short: "append to a value and print its new length; without BYTES, or with -, from stdin",
		Args:  arguments(1, 2, "KEY [BYTES]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := t.key(args[0])
			if err != nil {
				return err
			}
			tail, err := valueFrom(args[1:], t.stdin)
			if err != nil {
				return err
			}
			var length int
			err = t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				length, err = c.Append(ctx, key, tail, syncOption(sync)...)
				return err
			})
			if err != nil {
				return err
			}
			return t.answer(strconv.Itoa(length), t.keyField(key), field{"length", length})
		},
	}
	syncFlag(cmd, &sync)
	return cmd
}
