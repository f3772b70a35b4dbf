package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// The shell is `rskv` without a command on a terminal: each line is a command
// as it would stand behind `rskv`, all on one connection. Keys edit the line,
// bring back earlier ones (history.go) and complete names (complete.go).
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
	if err := s.history.keepIn(os.Getenv(historyVariable)); err != nil {
		fmt.Fprintln(t.stderr, "rskv:", err)
	}
	fmt.Fprintln(out, "rskv: help lists the commands, Tab completes, Ctrl-R searches, Ctrl-D leaves")
	return s.run(func() (func(), error) {
		if width, height, err := term.GetSize(fd); err == nil {
			_ = s.terminal.SetSize(width, height) // it may have changed during a command
		}
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

// keyCancel stands for Ctrl-C, which term.Terminal would take for the end.
const keyCancel = 0x1f

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

// cancelKeys hands on keys with Ctrl-C as keyCancel.
type cancelKeys struct{ io.ReadWriter }

func (c cancelKeys) Read(p []byte) (int, error) {
	n, err := c.ReadWriter.Read(p)
	for i, b := range p[:n] {
		if b == '\x03' {
			p[i] = keyCancel
		}
	}
	return n, err
}

// shell is a conversation on one terminal.
type shell struct {
	t        *tool
	terminal *term.Terminal
	history  *history
}

func newShell(t *tool, keys io.ReadWriter) *shell {
	s := &shell{t: t, terminal: term.NewTerminal(cancelKeys{keys}, prompt), history: &history{}}
	s.terminal.History = s.history
	s.terminal.AutoCompleteCallback = s.press
	return s
}

// press is told of each key that term.Terminal has no use for.
func (s *shell) press(line string, pos int, key rune) (newLine string, newPos int, ok bool) {
	found := s.history.found
	s.history.found = ""
	switch key {
	case '\t':
		return s.complete(line, pos)
	case keyCancel:
		if line == "" {
			fmt.Fprintln(s.terminal, "Ctrl-D or exit leaves")
		}
		return "", 0, true
	case '\x12': // Ctrl-R
		if found != "" && line == found {
			line = s.history.wanted // once more: an earlier one
		} else {
			s.history.from = 0
		}
		return s.history.search(line)
	}
	return "", 0, false
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
		if err != nil && !errors.Is(err, term.ErrPasteIndicator) {
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
	one := t.inside(t.stdin, t.stdout, t.stderr)
	one.execute(ctx, args)
	t.conn = one.conn
}

// inside is a tool for one command of a shell, with the shell's flags and
// connection.
func (t *tool) inside(stdin io.Reader, stdout, stderr io.Writer) *tool {
	return &tool{stdin: stdin, stdout: stdout, stderr: stderr, socket: t.socket, json: t.json, timeout: t.timeout, conn: t.conn, inShell: true}
}
