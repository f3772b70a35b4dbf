package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A word that is cut elsewhere than where it was meant is another key.
func TestSplitLine(t *testing.T) {
	for line, want := range map[string][]string{
		"":                        nil,
		"  \t ":                   nil,
		"get a":                   {"get", "a"},
		` get   "a b"  `:          {"get", "a b"},
		`a"b c"d 'e "f'`:          {"ab cd", `e "f`},
		`"" ''`:                   {"", ""},
		`"\x00\n\"" a\ b \\ '\n'`: {"\x00\n\"", "a b", `\`, `\n`},
		"größe 'ü'":               {"größe", "ü"},
	} {
		got, err := splitLine(line)
		require.NoError(t, err, line)
		require.Equal(t, want, got, line)
	}
	for _, line := range []string{`a "b`, `'`, `a\`, `"\q"`} {
		_, err := splitLine(line)
		require.Error(t, err, line)
	}
}
