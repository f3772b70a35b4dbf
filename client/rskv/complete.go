package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"rskv/client"
)

// What Tab offers: the shells of the system ask for it by the scripts of
// `rskv completion`, the shell of rskv by complete. Both get it from the
// commands, which name the values of their flags and arguments here.

// completeWait is how long the daemon may take to name what it has.
const completeWait = time.Second

// fileArguments are the commands whose arguments may be files.
var fileArguments = map[string]bool{"import": true, "verify": true, "export": true, "backup": true, "man": true}

// addCompletions tells cobra of the values that arguments and flags can have.
func (t *tool) addCompletions(root *cobra.Command) {
	values := map[string][]string{
		"if": {"absent", "present"}, "format": {string(formatTree), string(formatNDJSON), string(formatTSV)}, "kind": checkpointKinds(),
	}
	var each func(cmd *cobra.Command)
	each = func(cmd *cobra.Command) {
		for name, list := range values {
			if cmd.LocalFlags().Lookup(name) != nil {
				_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(list, cobra.ShellCompDirectiveNoFileComp))
			}
		}
		if cmd.ValidArgsFunction == nil && !fileArguments[cmd.Name()] && !cmd.HasSubCommands() {
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
		for _, c := range cmd.Commands() {
			each(c)
		}
	}
	each(root)
}

// offer makes a completion of what the daemon names; without one there is none.
func (t *tool) offer(list func(ctx context.Context, c *client.Client, args []string) ([]string, error)) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(context.Background(), completeWait)
		defer cancel()
		c, err := t.dial(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all, err := list(ctx, c, args)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		all = slices.DeleteFunc(all, func(s string) bool { return !strings.HasPrefix(s, word) })
		directive := cobra.ShellCompDirectiveNoFileComp
		if len(all) == 1 && strings.HasSuffix(all[0], "=") {
			directive |= cobra.ShellCompDirectiveNoSpace
		}
		return all, directive
	}
}

// settingNames offers the daemon's settings, each with what is put behind it.
func (t *tool) settingNames(behind string) cobra.CompletionFunc {
	return t.offer(func(ctx context.Context, c *client.Client, _ []string) ([]string, error) {
		config, err := c.Config(ctx)
		names := slices.Sorted(maps.Keys(config))
		for i := range names {
			names[i] += behind
		}
		return names, err
	})
}

// taskNames offers what stands behind `rskv tasks`.
func (t *tool) taskNames() cobra.CompletionFunc {
	return t.offer(func(ctx context.Context, c *client.Client, args []string) (names []string, err error) {
		switch len(args) {
		case 0:
			return []string{"stop", "start", "run"}, nil
		case 1:
			list, err := c.Tasks(ctx)
			for _, task := range list {
				names = append(names, task.Name)
			}
			return names, err
		}
		return nil, nil
	})
}

// complete completes the word before the cursor of the shell. Several that fit
// are listed.
func (s *shell) complete(line string, pos int) (string, int, bool) {
	before := line[:pos]
	start := strings.LastIndexByte(before, ' ') + 1
	word := before[start:]
	earlier, err := splitLine(before[:start])
	if err != nil {
		return "", 0, false // within quotes
	}
	fits, space := s.t.candidates(earlier, word)
	if len(fits) == 0 {
		return "", 0, false
	}
	longest := commonStart(fits)
	if len(fits) == 1 && space {
		longest += " "
	} else if longest == word {
		fmt.Fprintln(s.terminal, strings.Join(fits, "  "))
	}
	return line[:start] + longest + line[pos:], start + len(longest), true
}

// candidates are the words that may stand behind earlier ones and begin so, and
// whether a blank follows one that stands alone.
func (t *tool) candidates(earlier []string, word string) (fits []string, space bool) {
	var out bytes.Buffer
	one := t.inside(strings.NewReader(""), &out, io.Discard)
	one.execute(context.Background(), slices.Concat([]string{cobra.ShellCompNoDescRequestCmd}, earlier, []string{word}))
	t.conn = one.conn
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	last, ok := strings.CutPrefix(lines[len(lines)-1], ":")
	n, err := strconv.Atoi(last)
	if !ok || err != nil {
		return nil, false
	}
	directive := cobra.ShellCompDirective(n)
	flag := ""
	if name, _, ok := strings.Cut(word, "="); ok && strings.HasPrefix(word, "--") {
		flag = name + "=" // what is offered is the value
	}
	for _, value := range lines[:len(lines)-1] {
		if fit := flag + value; strings.HasPrefix(fit, word) {
			fits = append(fits, fit)
		}
	}
	if len(earlier) == 0 && strings.HasPrefix("exit", word) {
		fits = append(fits, "exit")
	}
	if len(fits) == 0 && directive&cobra.ShellCompDirectiveNoFileComp == 0 {
		return filesAt(word)
	}
	slices.Sort(fits)
	return slices.Compact(fits), directive&cobra.ShellCompDirectiveNoSpace == 0
}

// filesAt are the files whose path begins with word, directories with a slash.
func filesAt(word string) (fits []string, space bool) {
	dir, name := filepath.Split(word)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return nil, false
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), name) || name == "" && e.Name()[0] == '.' || strings.ContainsAny(e.Name(), " '\"\\\n\t") {
			continue // hidden ones have to be asked for, and quotes cannot be put in front of what is typed
		}
		path := dir + e.Name()
		if e.IsDir() {
			path += "/"
		}
		fits = append(fits, path)
	}
	return fits, len(fits) == 1 && !strings.HasSuffix(fits[0], "/")
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
