// Command rskvd serves one key-value store to the programs of this machine over
// a Unix socket. Without arguments it runs with its defaults; `rskvd --help`
// lists the settings.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rskv/daemon"
)

func main() {
	os.Exit(exitCode(command().ExecuteContext(context.Background()), os.Stderr))
}

// documentation makes the command that writes the manual pages; nil but in
// builds with the tag docs.
var documentation func(root *cobra.Command) *cobra.Command

// command is rskvd with everything below it. The settings are flags of all of
// it, so that `rskvd config check` sees what `rskvd` would.
func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "rskvd",
		Short:         "Serve one key-value store over a Unix socket",
		Long:          "Serve one key-value store over a Unix socket.\n\nEvery setting is a flag, a variable and a key of a TOML file (--config); a flag\ncounts over a variable, a variable over the file.",
		Example:       "  rskvd --dir /tmp/store --socket /tmp/store.sock --memory 256MiB\n  rskvd --config /etc/rskv/rskvd.toml --log-level debug",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := daemon.Load(cmd.Flags(), os.Environ())
			if err != nil {
				return err
			}
			return serve(cmd.Context(), cfg, func() (daemon.Config, error) { return daemon.Load(cmd.Flags(), os.Environ()) })
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().SortFlags = false
	daemon.AddFlags(root.PersistentFlags())
	completeChoices(root)
	root.AddCommand(configCommand(), &cobra.Command{
		Use: "version", Short: "Print what this program was built from, and how", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "rskvd", daemon.About())
			return err
		},
	})
	root.AddCommand(offlineCommands()...)
	if documentation != nil {
		root.AddCommand(documentation(root))
	}
	return root
}

// serve runs the daemon until the first SIGTERM or SIGINT; a second one ends
// the process on the spot. SIGHUP loads the settings again.
func serve(ctx context.Context, cfg daemon.Config, load func() (daemon.Config, error)) error {
	daemon.TuneCollector()
	manager, err := daemon.FromManager(os.Getenv, os.Getpid())
	if err != nil {
		return err
	}
	confined, err := daemon.Confine(cfg, manager)
	if err != nil {
		return err
	}
	reload := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	go func() {
		<-signals
		cancel()
		<-signals
		fmt.Fprintln(os.Stderr, "rskvd: second signal: not waiting any longer")
		os.Exit(1)
	}()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	go func() {
		for range hangups {
			select {
			case reload <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return daemon.Run(ctx, cfg, daemon.Environment{Log: os.Stderr, Manager: manager, Sandbox: confined, Reload: reload, Load: load})
}

// completeChoices tells completion of the settings that have a few values, whose
// flags name them.
func completeChoices(root *cobra.Command) {
	root.ValidArgsFunction = cobra.NoFileCompletions
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if values := strings.Split(f.Value.Type(), "|"); len(values) > 1 {
			_ = root.RegisterFlagCompletionFunc(f.Name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
		}
	})
}

func configCommand() *cobra.Command {
	config := &cobra.Command{Use: "config", Short: "Look at the settings without starting"}
	config.AddCommand(
		&cobra.Command{
			Use: "check", Short: "Report everything that is wrong with the settings", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				_, err := daemon.Load(cmd.Flags(), os.Environ())
				return err
			},
		},
		&cobra.Command{
			Use: "dump", Short: "Print the settings in force, as a file, with where each was given", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := daemon.Load(cmd.Flags(), os.Environ())
				return errors.Join(err, cfg.WriteTOML(cmd.OutOrStdout()))
			},
		},
		&cobra.Command{
			Use: "defaults", Short: "Print the settings where nothing is said, as a file", Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return daemon.Defaults().WriteTOML(cmd.OutOrStdout())
			},
		},
	)
	return config
}
