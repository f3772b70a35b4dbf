package main

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"rskv/client/rskvtest"
)

// An example that does not work costs everybody who copies it, and a command
// without one is tried by guessing.
func TestExamples(t *testing.T) {
	s := rskvtest.NewServer(t, rskvtest.Setting("ordered", "true"))
	t.Chdir(t.TempDir())
	require.NoError(t, os.Mkdir("engine", 0o755))
	require.NoError(t, os.WriteFile(filepath.Join("engine", "doc.go"), []byte("package engine\n"), 0o644))
	var each func(cmd *cobra.Command)
	each = func(cmd *cobra.Command) {
		if name := cmd.Name(); name == "help" || name == "completion" || cmd.Hidden {
			return
		}
		require.Contains(t, cmd.Example, cmd.CommandPath())
		for line := range strings.Lines(cmd.Example) {
			for _, before := range [][]string{
				{"put", "greeting", "hello, world"}, {"put", "now", "x"}, {"put", "session/ada", "x"}, {"del", "stock", "n1", "--blind"},
				{"mput", "visits", "12345678", "src/doc.go", "package engine\n"}, {"add", "requests/ada", "0"}, {"export", "all.ndjson"},
			} {
				require.Zero(t, rskv(t, s.Socket(), "", before...).code, before)
			}
			tryLine(t, s.Socket(), strings.ReplaceAll(line, "/tmp/", t.TempDir()+"/"))
		}
		for _, c := range cmd.Commands() {
			each(c)
		}
	}
	each((&tool{}).root())
}

// tryLine runs the commands of one line: rskv in this process, of others only
// that there is something to read is made up.
func tryLine(t *testing.T, socket, line string) {
	t.Helper()
	line, _, _ = strings.Cut(strings.TrimSpace(line), " # ")
	stdin := "put n1 1\n"
	for part := range strings.SplitSeq(line, " | ") {
		part, _, _ = strings.Cut(part, " && ")
		part, _, _ = strings.Cut(part, " || ")
		words, err := splitLine(part)
		require.NoError(t, err, line)
		if words[0] != "rskv" {
			continue
		}
		args := words[1:]
		if endless(args) {
			_, _, err := (&tool{}).root().Find(args)
			require.NoError(t, err, line)
			r := rskv(t, socket, "", append(args, "--help")...) // its flags are checked before
			require.Zero(t, r.code, "%s: %s", line, r.stderr)
			continue
		}
		r := rskv(t, socket, stdin, args...)
		require.Zero(t, r.code, "%s: %s", line, r.stderr)
		stdin = r.stdout
	}
}

// endless are commands that go on until they are interrupted, need a terminal,
// or a Redis server.
func endless(args []string) bool {
	for _, a := range args {
		if a == "watch" || a == "monitor" || a == "top" || a == "--stat" || isRedis(a) {
			return true
		}
	}
	return len(args) == 0
}

// What is no JSON where --json was asked for breaks the program that asked.
func TestExamples_JSON(t *testing.T) {
	s := rskvtest.NewServer(t, rskvtest.Setting("ordered", "true"))
	t.Chdir(t.TempDir())
	require.NoError(t, os.Mkdir("engine", 0o755))
	require.NoError(t, os.WriteFile(filepath.Join("engine", "doc.go"), []byte("package engine\n"), 0o644))
	require.Zero(t, rskv(t, s.Socket(), "", "put", "greeting", "hello, world").code)
	require.Equal(t, 1, strings.Count(rskv(t, s.Socket(), "", "scan", "--limit", "1").stdout, "\n"))
	for _, name := range slices.Sorted(maps.Keys(examples)) {
		for line := range strings.Lines(examples[name]) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
			words, err := splitLine(line)
			require.NoError(t, err)
			if words[0] != "rskv" || strings.ContainsAny(line, "|&") || endless(words[1:]) {
				continue
			}
			for i := range words {
				words[i] = strings.Replace(words[i], "/tmp/", t.TempDir()+"/", 1)
			}
			r := rskv(t, s.Socket(), "", append(words[1:], "--json")...)
			for out := range strings.Lines(r.stdout) {
				require.True(t, json.Valid([]byte(out)), "%s: %s", name, out)
			}
		}
	}
}
