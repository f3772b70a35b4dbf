package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// typing runs a shell on keys that were typed, and returns the lines that it ran.
func typing(t *testing.T, s *shell) (ran []string) {
	t.Helper()
	require.NoError(t, s.run(func() (func(), error) { return func() {}, nil }, func(args []string) { ran = append(ran, strings.Join(args, " ")) }))
	return ran
}

// A search that brings another line than one that holds what was typed runs a
// command that nobody meant.
func TestHistory_Search(t *testing.T) {
	s := newShell(&tool{}, &keys{typed: strings.NewReader("put a 1\rget b\rput c 2\r put secret 3\rput c 2\r" +
		"put\x12\r" + // the newest
		"a 1\x12\r" +
		"put\x12\x12\r" + // the one before: the lines that were run are lines too
		"absent\x12\r" +
		"\x1b[A\x1b[A\r")}) // the arrow does as ever
	require.Equal(t, []string{"put a 1", "get b", "put c 2", "put secret 3", "put c 2", "put c 2", "put a 1", "put c 2", "absent", "put c 2"}, typing(t, s))
	require.Equal(t, []string{"put a 1", "get b", "put c 2", "put a 1", "put c 2", "absent", "put c 2"}, s.history.lines, "not what begins with a blank, nor twice in a row")
}

// Lines hold values: they must not reach the disk unless that is asked for, and
// then be nobody else's.
func TestHistory_File(t *testing.T) {
	file := filepath.Join(t.TempDir(), "history")
	for range 2 {
		s := newShell(&tool{}, &keys{typed: strings.NewReader("put a 1\r secret\rget a\r")})
		require.NoError(t, s.history.keepIn(file))
		typing(t, s)
	}
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, "put a 1\nget a\nput a 1\nget a\n", string(text))
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	s := newShell(&tool{}, &keys{typed: strings.NewReader("\x1b[A\r")})
	require.NoError(t, s.history.keepIn(file))
	require.Equal(t, []string{"get a"}, typing(t, s), "of the shell before")

	require.Error(t, (&history{}).keepIn(t.TempDir()), "a directory")
	var many history
	for i := range 2 * historyLines {
		many.append(strings.Repeat("x", i%7+1))
	}
	require.Len(t, many.lines, historyLines)
}
