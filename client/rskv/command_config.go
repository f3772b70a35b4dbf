package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"rskv/client"
)

func (t *tool) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config [NAME=VALUE]...",
		Short: "print the settings in force, after changing some",
		Long: "config prints the settings in force, after changing those that are given; `rskvd --help` tells what they\n" +
			"mean. A change lasts until the daemon ends, and needs the role admin: what is to stay belongs into the\n" +
			"daemon's file.",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: t.settingNames("="),
		RunE: func(cmd *cobra.Command, args []string) error {
			settings := make(map[string]string, len(args))
			for _, arg := range args {
				name, value, ok := strings.Cut(arg, "=")
				if !ok || name == "" {
					return fmt.Errorf("config takes NAME=VALUE, or get and set, not %q", arg)
				}
				settings[name] = value
			}
			return t.printConfig(cmd, settings, nil)
		},
	}
	cmd.AddCommand(&cobra.Command{
		Use:               "get [NAME]...",
		Short:             "print settings, those that are named or all",
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: t.settingNames(""),
		RunE:              func(cmd *cobra.Command, args []string) error { return t.printConfig(cmd, nil, args) },
	}, &cobra.Command{
		Use:               "set NAME VALUE",
		Short:             "change a setting until the daemon ends, and print it",
		Args:              arguments(2, 2, "NAME VALUE"),
		ValidArgsFunction: t.settingNames(""),
		RunE: func(cmd *cobra.Command, args []string) error {
			return t.printConfig(cmd, map[string]string{args[0]: args[1]}, args[:1])
		},
	})
	return cmd
}

// printConfig changes settings, if there are some, and prints those that are
// named, or all.
func (t *tool) printConfig(cmd *cobra.Command, settings map[string]string, names []string) error {
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
	if len(names) == 0 {
		return t.printMap(config)
	}
	named := make(map[string]any, len(names))
	for _, name := range names {
		value, ok := config[name]
		if !ok {
			return fmt.Errorf("%q is no setting (rskv config lists them)", name)
		}
		named[name] = value
	}
	return t.printMap(named)
}
