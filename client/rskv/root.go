package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rskv/client"
	"rskv/ipc"
)

// timeoutDefault is how long an answer may take: longer than any healthy
// daemon needs, short enough that a script does not hang for ever.
const timeoutDefault = 30 * time.Second

// tool is one run of the program: its streams, the flags every command has, and
// the connection, which is made when it is first needed.
type tool struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	socket  string
	json    bool
	hex     bool
	timeout time.Duration

	conn    *client.Client
	inShell bool // this is one command of a shell
}

// documentation makes the command that writes the manual pages; nil but in
// builds with the tag docs.
var documentation func(root *cobra.Command) *cobra.Command

// root builds the command tree.
func (t *tool) root() *cobra.Command {
	var v views
	root := &cobra.Command{
		Use:   "rskv",
		Short: "talk to the key-value daemon rskvd",
		Long: "rskv talks to the key-value daemon rskvd over its Unix socket.\n\n" +
			"Without a command, on a terminal, it is a shell in which each line is a command. It forgets its lines when\n" +
			"it is left, for they hold values; if RSKV_HISTORY names a file they are kept there.\n\n" +
			"Exit codes: 0 found or done; 1 absent, different, or the condition was not met; 2 an error.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return notACommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if v.asked() > 0 {
				return t.view(cmd, &v)
			}
			in, _ := t.stdin.(*os.File)
			out, _ := t.stdout.(*os.File)
			if t.inShell || !isTerminal(in) || !isTerminal(out) {
				return errors.New("no command given (rskv help lists them)")
			}
			return t.startShell(cmd.Context(), in, out)
		},
		SilenceErrors: true,
		SilenceUsage:  true,
		// They would come with the usage; notACommand makes its own.
		DisableSuggestions:         true,
		SuggestionsMinimumDistance: 2,
	}
	if !t.inShell {
		t.socket, t.timeout = ipc.DefaultSocket(), timeoutDefault
	}
	flags := root.PersistentFlags()
	flags.StringVar(&t.socket, "socket", t.socket, "socket of the daemon (RSKV_SOCKET)")
	flags.BoolVar(&t.json, "json", t.json, "print JSON; bytes that are not UTF-8 as ..._base64")
	flags.DurationVar(&t.timeout, "timeout", t.timeout, "longest wait for one answer; 0 waits for ever")
	v.add(root.Flags())
	t.addCommands(root)
	addExamples(root)
	t.addCompletions(root)
	if documentation != nil {
		root.AddCommand(documentation(root))
	}
	return root
}

// addCommands adds all commands, under their headings.
func (t *tool) addCommands(root *cobra.Command) {
	addGroup(root, "Keys", t.withHex(t.getCommand(), t.putCommand(), t.delCommand(), t.existsCommand(), t.casCommand(),
		t.addCommand(), t.appendCommand(), t.expireCommand(), t.ttlCommand(), t.mgetCommand(), t.mputCommand(), t.scanCommand(), t.watchCommand())...)
	addGroup(root, "Keys", t.lenCommand(), t.syncCommand())
	addGroup(root, "Files and Redis", t.withHex(t.exportCommand())...)
	addGroup(root, "Files and Redis", t.importCommand(), t.verifyCommand())
	addGroup(root, "What the daemon does", t.pingCommand(), t.healthCommand(), t.statsCommand(), t.topCommand(), t.monitorCommand(),
		t.slowlogCommand(), t.tasksCommand(), t.configCommand())
	addGroup(root, "What is on the disk", t.backupCommand(), t.checkpointCommand(), t.checkpointsCommand(), t.compactCommand(), t.scrubCommand())
	addGroup(root, "This program", t.versionCommand())
	root.SetHelpCommandGroupID("This program")
	root.SetCompletionCommandGroupID("This program")
}

// notACommand says so, and what may have been meant.
func notACommand(root *cobra.Command, name string) error {
	if meant := root.SuggestionsFor(name); len(meant) > 0 {
		return fmt.Errorf("%q is not a command; is it %s?", name, strings.Join(meant, " or "))
	}
	return fmt.Errorf("%q is not a command (rskv help lists them)", name)
}

// addDefaults adds the commands that the library brings, in the voice of the
// others. It is for a root that has its streams: they are taken here.
func addDefaults(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Short = "tell about a command"
		case "completion":
			c.Short = "write a script that completes commands in bash, zsh, fish or powershell"
		}
	}
}

// addGroup adds commands under a heading of the help, which is its name too.
func addGroup(root *cobra.Command, heading string, commands ...*cobra.Command) {
	if !root.ContainsGroup(heading) {
		root.AddGroup(&cobra.Group{ID: heading, Title: heading + ":"})
	}
	for _, c := range commands {
		c.GroupID = heading
	}
	root.AddCommand(commands...)
}

// negative is a number that pflag would take for a flag. No flag begins with a
// digit.
var negative = regexp.MustCompile(`^-[0-9]+$`)

// negativeLast lets `rskv add key -5` be written without "--": the numbers go
// behind one at the end.
func negativeLast(root *cobra.Command, args []string) []string {
	cmd, _, err := root.Find(args)
	if err != nil || cmd.Name() != "add" || slices.Contains(args, "--") {
		return args
	}
	var before, after []string
	for _, a := range args {
		if negative.MatchString(a) {
			after = append(after, a)
		} else {
			before = append(before, a)
		}
	}
	if after == nil {
		return args
	}
	return append(append(before, "--"), after...)
}

// withHex gives commands that take or print keys the flag --hex.
func (t *tool) withHex(commands ...*cobra.Command) []*cobra.Command {
	for _, c := range commands {
		c.Flags().BoolVar(&t.hex, "hex", false, "keys are given, and printed, in hexadecimal")
	}
	return commands
}

// key decodes a key argument.
func (t *tool) key(arg string) ([]byte, error) { return decodeKey(arg, t.hex) }

// keys decodes key arguments.
func (t *tool) keys(args []string) ([][]byte, error) {
	keys := make([][]byte, len(args))
	for i, arg := range args {
		var err error
		if keys[i], err = t.key(arg); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// note tells people, not programs: only on a terminal.
func (t *tool) note(text string) {
	if isTerminal(t.stderr) {
		fmt.Fprintln(t.stderr, text)
	}
}

// arguments checks how many there are; usage names them.
func arguments(least, most int, usage string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			if usage == "" {
				return fmt.Errorf("%s takes no arguments", strings.TrimPrefix(cmd.CommandPath(), "rskv "))
			}
			return fmt.Errorf("%s takes %s, %d given", strings.TrimPrefix(cmd.CommandPath(), "rskv "), usage, len(args))
		}
		return nil
	}
}
