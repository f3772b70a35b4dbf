package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"rskv/client"
)

func (t *tool) scanCommand() *cobra.Command {
	var prefix, from, to string
	var keys, reverse bool
	var limit int
	cmd := &cobra.Command{
		Use:   "scan",
		Short: "list all keys with their values",
		Long: "scan lists every key that is there from its beginning to its end exactly once. A line is key, tab,\n" +
			"value, with tab, newline, carriage return and backslash written \\t \\n \\r \\\\. With --hex the keys of\n" +
			"the options, and those that are listed, are in hexadecimal.\n\n" +
			"A daemon with the ordered index (setting ordered) returns the keys in their order, byte by byte, takes\n" +
			"--from, --to and --reverse, and reads no more than it returns. Any other one reads its whole log,\n" +
			"whatever the prefix is, and there is no order.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return fmt.Errorf("--limit is %d, must not be below 0", limit)
			}
			o := client.ScanOptions{KeysOnly: keys, Count: scanKeys, Reverse: reverse}
			for _, k := range []struct {
				text string
				to   *[]byte
			}{{prefix, &o.Prefix}, {from, &o.From}, {to, &o.To}} {
				if k.text == "" {
					continue
				}
				key, err := t.key(k.text)
				if err != nil {
					return err
				}
				*k.to = key
			}
			return t.scan(cmd, o, limit)
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "only keys that begin with it")
	cmd.Flags().StringVar(&from, "from", "", "only keys from it on")
	cmd.Flags().StringVar(&to, "to", "", "only keys below it")
	cmd.Flags().BoolVar(&reverse, "reverse", false, "the highest keys first")
	cmd.Flags().BoolVar(&keys, "keys", false, "only the keys")
	cmd.Flags().IntVar(&limit, "limit", 0, "end after that many; 0 lists all")
	return cmd
}

// scanKeys is how many entries of a page are asked for.
const scanKeys = 1000

// scan prints page by page, and ends after so many entries, unless that is 0.
func (t *tool) scan(cmd *cobra.Command, o client.ScanOptions, limit int) error {
	if limit > 0 {
		o.Count = min(o.Count, limit)
	}
	printed := 0
	err := t.scanPages(cmd, o, func(pairs []client.Pair) error {
		for _, p := range pairs {
			if err := t.printScanned(p, o.KeysOnly); err != nil {
				return err
			}
			if printed++; printed == limit {
				return errDone
			}
		}
		return nil
	})
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

// scanPages hands out page by page; --timeout is for each.
func (t *tool) scanPages(cmd *cobra.Command, o client.ScanOptions, page func([]client.Pair) error) error {
	for cursor := []byte(nil); ; {
		var pairs []client.Pair
		err := t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
			pairs, cursor, err = c.ScanPage(ctx, o, cursor)
			return err
		})
		if err != nil {
			return err
		}
		if err := page(pairs); err != nil {
			return err
		}
		if cursor == nil {
			return nil
		}
	}
}

func (t *tool) printScanned(p client.Pair, keysOnly bool) error {
	text := string(appendEscaped(nil, p.Key))
	if t.hex {
		text = hex.EncodeToString(p.Key)
	}
	fields := []field{{"key", p.Key}}
	if !keysOnly {
		text += "\t" + string(appendEscaped(nil, p.Value))
		fields = append(fields, field{"value", p.Value})
	}
	return t.answer(text, fields...)
}

func (t *tool) lenCommand() *cobra.Command {
	var exact bool
	cmd := &cobra.Command{
		Use:   "len",
		Short: "print the number of keys",
		Long: "len prints the number of keys from the daemon's counters, which can be slightly off while keys are\n" +
			"on disk. With --exact the daemon reads its whole log to count them, and corrects its counters.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var n int64
			ask := (*client.Client).Len
			if exact {
				ask = (*client.Client).LenExact
			}
			err := t.patient(cmd, "counting", func(ctx context.Context, c *client.Client) (err error) {
				n, err = ask(c, ctx)
				return err
			})
			if err != nil {
				return err
			}
			return t.answer(strconv.FormatInt(n, 10), field{"keys", n})
		},
	}
	cmd.Flags().BoolVar(&exact, "exact", false, "count them")
	return cmd
}
