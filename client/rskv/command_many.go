package main

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/spf13/cobra"

	"rskv/client"
	"rskv/ipc"
)

func (t *tool) mgetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "mget KEY...",
		Short: "print several keys with their values; exit code 1 if one is absent",
		Long: "mget prints a line for each key that is there: key, tab, value, with tab, newline, carriage\n" +
			"return and backslash written \\t \\n \\r \\\\. With --json it prints an object a line, and one\n" +
			"with \"found\":false for a key that is absent.",
		Args: arguments(1, ipc.MaxKeys, "KEY..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			keys, err := t.keys(args)
			if err != nil {
				return err
			}
			var values [][]byte
			err = t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				values, err = c.MGet(ctx, keys)
				return err
			})
			if err != nil {
				return err
			}
			absent := 0
			for i, key := range keys {
				if values[i] == nil {
					absent++
				}
				if err := t.printPair(key, values[i]); err != nil {
					return err
				}
			}
			if absent > 0 {
				t.note(fmt.Sprintf("%d of %d absent", absent, len(keys)))
				return errAbsent
			}
			return nil
		},
	}
}

// printPair prints a line of mget. A nil value is an absent key.
func (t *tool) printPair(key, value []byte) error {
	switch {
	case t.json && value == nil:
		return t.answer("", t.keyField(key), field{"found", false})
	case t.json:
		return t.answer("", t.keyField(key), field{"found", true}, field{"value", value})
	case value == nil:
		return nil
	}
	if t.hex {
		key = []byte(hex.EncodeToString(key))
	}
	_, err := t.stdout.Write(appendTSV(nil, key, value))
	return err
}

func (t *tool) mputCommand() *cobra.Command {
	var sync bool
	var ttl string
	cmd := &cobra.Command{
		Use:   "mput KEY VALUE [KEY VALUE]...",
		Short: "store several values, each by itself and in order",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || len(args)%2 != 0 {
				return fmt.Errorf("mput takes KEY VALUE pairs, %d arguments given", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			pairs := make([]client.Pair, len(args)/2)
			for i := range pairs {
				key, err := t.key(args[2*i])
				if err != nil {
					return err
				}
				pairs[i] = client.Pair{Key: key, Value: []byte(args[2*i+1])}
			}
			opts, err := ttlOption(ttl)
			if err != nil {
				return err
			}
			opts = append(opts, syncOption(sync)...)
			var n int
			err = t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				n, err = c.MPut(ctx, pairs, opts...)
				return err
			})
			if err != nil {
				return err
			}
			return t.answer("", field{"stored", n})
		},
	}
	ttlFlag(cmd, &ttl)
	syncFlag(cmd, &sync)
	return cmd
}
