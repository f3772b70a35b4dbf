package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
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
			"Without a command, on a terminal, it is a shell in which each line is a command.\n\n" +
			"Exit codes: 0 found or done; 1 absent, different, or the condition was not met; 2 an error.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%q is not a command (rskv help lists them)", args[0])
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
		SilenceErrors:      true,
		SilenceUsage:       true,
		DisableSuggestions: true,
	}
	flags := root.PersistentFlags()
	flags.StringVar(&t.socket, "socket", ipc.DefaultSocket(), "socket of the daemon (RSKV_SOCKET)")
	flags.BoolVar(&t.json, "json", false, "print JSON; bytes that are not UTF-8 as ..._base64")
	flags.DurationVar(&t.timeout, "timeout", timeoutDefault, "longest wait for one answer; 0 waits for ever")
	v.add(root.Flags())
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
	if documentation != nil {
		root.AddCommand(documentation(root))
	}
	return root
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

// keyField is a key in a JSON answer.
func (t *tool) keyField(key []byte) field {
	if t.hex {
		return field{"key_hex", hex.EncodeToString(key)}
	}
	return field{"key", key}
}

// note tells people, not programs: only on a terminal.
func (t *tool) note(text string) {
	if isTerminal(t.stderr) {
		fmt.Fprintln(t.stderr, text)
	}
}

// field is one member of a JSON answer.
type field struct {
	name  string
	value any
}

// answer prints fields as one line of JSON, or text if JSON was not asked for.
// An empty text prints nothing.
func (t *tool) answer(text string, fields ...field) error {
	if !t.json {
		if text == "" {
			return nil
		}
		_, err := fmt.Fprintln(t.stdout, text)
		return err
	}
	line := []byte{'{'}
	for i, f := range fields {
		if i > 0 {
			line = append(line, ',')
		}
		name, value := f.name, f.value
		if b, ok := value.([]byte); ok {
			plain, encoded := jsonBytes(b)
			if value = plain; plain == nil {
				name, value = name+"_base64", encoded
			}
		}
		text, err := encodeJSON(value)
		if err != nil {
			return fmt.Errorf("encode %s: %w", name, err)
		}
		line = append(append(append(line, '"'), name...), '"', ':')
		line = append(line, text...)
	}
	_, err := t.stdout.Write(append(line, '}', '\n'))
	return err
}

// encodeJSON encodes v without escaping <, > and &.
func encodeJSON(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), err
}

// arguments checks how many there are; usage names them.
func arguments(least, most int, usage string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < least || most >= 0 && len(args) > most {
			if usage == "" {
				return fmt.Errorf("%s takes no arguments", cmd.Name())
			}
			return fmt.Errorf("%s takes %s, %d given", cmd.Name(), usage, len(args))
		}
		return nil
	}
}
