package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
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

func (t *tool) configCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config [NAME=VALUE]...",
		Short: "print the settings in force, after changing some",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			settings := make(map[string]string, len(args))
			for _, arg := range args {
				name, value, ok := strings.Cut(arg, "=")
				if !ok || name == "" {
					return fmt.Errorf("config takes NAME=VALUE, not %q", arg)
				}
				settings[name] = value
			}
			var config map[string]any
			err := t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
				if len(settings) > 0 {
					config, err = c.SetConfig(ctx, settings)
				} else {
					config, err = c.Config(ctx)
				}
				return err
			})
			if err != nil {
				return err
			}
			return t.printMap(config)
		},
	}
}

// printMap prints names and values, sorted; a map within goes by dotted names.
func (t *tool) printMap(m map[string]any) error {
	if t.json {
		line, err := encodeJSON(jsonValue(m))
		if err != nil {
			return fmt.Errorf("encode the answer: %w", err)
		}
		_, err = t.stdout.Write(append(line, '\n'))
		return err
	}
	var text strings.Builder
	flatten(&text, "", m)
	_, err := fmt.Fprint(t.stdout, text.String())
	return err
}

// flatten writes a line "name value" for everything in m.
func flatten(out *strings.Builder, above string, m map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		switch v := m[name].(type) {
		case map[string]any:
			flatten(out, above+name+".", v)
		case []byte:
			fmt.Fprintf(out, "%s%s %q\n", above, name, v)
		default:
			fmt.Fprintf(out, "%s%s %v\n", above, name, v)
		}
	}
}

// jsonValue makes text of byte strings, which JSON has no type for.
func jsonValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name := range v {
			v[name] = jsonValue(v[name])
		}
	case []any:
		for i := range v {
			v[i] = jsonValue(v[i])
		}
	case []byte:
		return strings.ToValidUTF8(string(v), "\ufffd")
	}
	return v
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

func (t *tool) checkpointCommand() *cobra.Command {
	var kind, cookie string
	cmd := &cobra.Command{
		Use:   "checkpoint",
		Short: "take a checkpoint and return when it is on stable storage",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var o client.CheckpointOptions
			kinds := []ipc.CheckpointKind{ipc.CheckpointFull, ipc.CheckpointLog, ipc.CheckpointIndex}
			i := slices.IndexFunc(kinds, func(k ipc.CheckpointKind) bool { return k.String() == kind })
			if i < 0 {
				return fmt.Errorf("--kind is %q, must be full, log or index", kind)
			}
			if len(cookie) > ipc.MaxCookie {
				return fmt.Errorf("--cookie has %d bytes, the limit is %d", len(cookie), ipc.MaxCookie)
			}
			o.Kind = kinds[i]
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
	cmd.Flags().StringVar(&kind, "kind", ipc.CheckpointFull.String(), "full, log or index")
	cmd.Flags().StringVar(&cookie, "cookie", "", "bytes to keep with it")
	return cmd
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
