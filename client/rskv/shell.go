package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// The shell is `rskv` without a command on a terminal: each line is a command
// as it would stand behind `rskv`, all on one connection. Keys edit the line,
// bring back earlier ones (which are kept in memory only: they hold values) and
// complete names with Tab.
//
//	at the prompt      the terminal is raw, term.Terminal edits the line
//	in a command       it is as it was, and Ctrl-C ends the command only

const prompt = "rskv> "

// startShell runs a shell on the terminal until its user leaves.
func (t *tool) startShell(ctx context.Context, in, out *os.File) error {
	fd := int(in.Fd())
	// Ctrl-C in a command would end the context that came in for good.
	ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	s := newShell(t, keyboard{ctx, in, out})
	if width, height, err := term.GetSize(fd); err == nil {
		_ = s.terminal.SetSize(width, height)
	}
	fmt.Fprintln(out, "rskv: help lists the commands, Tab completes, Ctrl-D leaves")
	return s.run(func() (func(), error) {
		state, err := term.MakeRaw(fd)
		if err != nil {
			return nil, fmt.Errorf("take over the terminal: %w", err)
		}
		return func() { _ = term.Restore(fd, state) }, nil
	}, func(args []string) {
		ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
		defer stop()
		t.command(ctx, args)
	})
}

// keyboard reads keys until its context ends.
type keyboard struct {
	ctx context.Context
	io.Reader
	io.Writer
}

func (k keyboard) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	read := make(chan result, 1)
	go func() {
		n, err := k.Reader.Read(p)
		read <- result{n, err}
	}()
	select {
	case r := <-read:
		return r.n, r.err
	case <-k.ctx.Done():
		return 0, io.EOF
	}
}

// shell is a conversation on one terminal.
type shell struct {
	t        *tool
	terminal *term.Terminal
}

func newShell(t *tool, keys io.ReadWriter) *shell {
	s := &shell{t: t, terminal: term.NewTerminal(keys, prompt)}
	root := (&tool{}).root()
	root.InitDefaultHelpCmd()
	s.terminal.AutoCompleteCallback = func(line string, pos int, key rune) (string, int, bool) {
		if key != '\t' {
			return "", 0, false
		}
		return s.complete(root, line, pos)
	}
	return s
}

// run reads lines and does what they say. raw makes the terminal raw and returns
// what undoes it.
func (s *shell) run(raw func() (func(), error), do func(args []string)) error {
	for {
		undo, err := raw()
		if err != nil {
			return err
		}
		line, err := s.terminal.ReadLine()
		undo()
		if errors.Is(err, io.EOF) {
			_, err = io.WriteString(s.terminal, "\n")
			return err
		}
		if err != nil {
			return err
		}
		args, err := splitLine(line)
		switch {
		case err != nil:
			fmt.Fprintln(s.t.stderr, "rskv:", err)
		case len(args) == 0:
		case args[0] == "exit" || args[0] == "quit":
			return nil
		default:
			do(args)
		}
	}
}

// command runs one command of a shell, on the shell's connection.
func (t *tool) command(ctx context.Context, args []string) {
	one := &tool{stdin: t.stdin, stdout: t.stdout, stderr: t.stderr, conn: t.conn, inShell: true}
	given := []string{"--socket", t.socket, "--timeout", t.timeout.String()}
	if t.json {
		given = append(given, "--json")
	}
	if slices.Contains([]string{"help", "completion"}, args[0]) {
		given = nil
	}
	one.execute(ctx, append(given, args...))
	t.conn = one.conn
}

// complete completes the word before the cursor: the name of a command first,
// then its flags. Several that fit are listed.
func (s *shell) complete(root *cobra.Command, line string, pos int) (string, int, bool) {
	before := line[:pos]
	start := strings.LastIndexByte(before, ' ') + 1
	word := before[start:]
	fits := candidates(root, strings.Fields(before[:start]), word)
	if len(fits) == 0 {
		return "", 0, false
	}
	longest := commonStart(fits)
	if len(fits) == 1 {
		longest += " "
	} else if longest == word {
		fmt.Fprintln(s.terminal, strings.Join(fits, "  "))
	}
	return line[:start] + longest + line[pos:], start + len(longest), true
}

// candidates are the words that may stand behind earlier ones and begin so.
func candidates(root *cobra.Command, earlier []string, word string) (fits []string) {
	add := func(name string) {
		if strings.HasPrefix(name, word) && !slices.Contains(fits, name) {
			fits = append(fits, name)
		}
	}
	if len(earlier) == 0 || len(earlier) == 1 && earlier[0] == "help" {
		for _, c := range root.Commands() {
			if c.IsAvailableCommand() || c.Name() == "help" {
				add(c.Name())
			}
		}
		if len(earlier) == 0 {
			add("exit")
		}
	} else if cmd, _, err := root.Find(earlier); err == nil && cmd != root && strings.HasPrefix(word, "-") {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { add("--" + f.Name) })
		cmd.InheritedFlags().VisitAll(func(f *pflag.Flag) { add("--" + f.Name) })
	}
	slices.Sort(fits)
	return fits
}

// commonStart is what all words begin with.
func commonStart(words []string) string {
	start := words[0]
	for _, w := range words[1:] {
		for !strings.HasPrefix(w, start) {
			start = start[:len(start)-1]
		}
	}
	return start
}

// splitLine cuts a line into words at blanks. 'single quotes' keep everything as
// it is, "double quotes" have the escapes of Go ("\n", "\x00"), and a backslash
// outside of both keeps the next character.
func splitLine(line string) (words []string, err error) {
	var word strings.Builder
	begun := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; c {
		case ' ', '\t', '\r', '\n':
			if begun {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
			continue
		case '\'':
			end := strings.IndexByte(line[i+1:], '\'')
			if end < 0 {
				return nil, errors.New("a ' has no end")
			}
			word.WriteString(line[i+1 : i+1+end])
			i += end + 1
		case '"':
			quoted, err := strconv.QuotedPrefix(line[i:])
			if err != nil {
				return nil, errors.New(`a " has no end, or an escape that is none`)
			}
			text, _ := strconv.Unquote(quoted) // QuotedPrefix has checked it
			word.WriteString(text)
			i += len(quoted) - 1
		case '\\':
			if i++; i == len(line) {
				return nil, errors.New(`a \ has nothing behind it`)
			}
			word.WriteByte(line[i])
		default:
			word.WriteByte(c)
		}
		begun = true
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}
