package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// keys is a terminal whose user has typed everything already.
type keys struct {
	typed  *strings.Reader
	screen bytes.Buffer
}

func (k *keys) Read(p []byte) (int, error)  { return k.typed.Read(p) }
func (k *keys) Write(p []byte) (int, error) { return k.screen.Write(p) }

// A shell that runs another line than the one that was typed, or stays in raw
// mode while it does, is worse than none.
func TestShell(t *testing.T) {
	f := newFake(t)
	var out, stderr bytes.Buffer
	tool := &tool{stdin: strings.NewReader("from stdin"), stdout: &out, stderr: &stderr, socket: f.socket}
	defer func() { tool.hangUp() }()
	k := &keys{typed: strings.NewReader("put 'a key' \"b\\n\"\r" + // quotes
		"get  'a key'\r" +
		"\r" +
		"exis\t a\\ key\r" + // completed to exists
		"\x1b[A\x1b[A\x1b[A\r" + // the get once more
		"put x 'open\r" +
		"get absent\r" +
		"sta\t\r" + // stats
		"add n -5\r" +
		"bogus\r" +
		"rm\x7f\x7fping\x01\x05\r" + // edited
		"\r" +
		"exit\r" +
		"ping\r")}
	s := newShell(tool, k)
	raw, commands := 0, 0
	require.NoError(t, s.run(func() (func(), error) {
		raw++
		return func() { raw-- }, nil
	}, func(args []string) {
		commands++
		require.Zero(t, raw, "a command runs on a terminal that is raw")
		tool.command(t.Context(), args)
	}))
	require.Zero(t, raw)
	require.Equal(t, "b\nb\nkeys 1\nlog.backend none\n-5\npong\n", out.String())
	require.Equal(t, "rskv: a ' has no end\nrskv: \"bogus\" is not a command (rskv help lists them)\n", stderr.String())
	require.Equal(t, map[string]string{"a key": "b\n", "n": "\xfb\xff\xff\xff\xff\xff\xff\xff"}, f.all())
	require.Equal(t, 9, commands)
	require.Contains(t, k.screen.String(), prompt)

	k = &keys{typed: strings.NewReader("ping\x04\x15\x04")}
	require.NoError(t, newShell(tool, k).run(func() (func(), error) { return func() {}, nil }, nil), "Ctrl-D leaves")
}

// Completion must offer what is there, and not change what is typed already.
func TestShell_Complete(t *testing.T) {
	var out bytes.Buffer
	s := newShell(&tool{}, &keys{typed: strings.NewReader("")})
	root := (&tool{}).root()
	root.InitDefaultHelpCmd()
	for _, c := range []struct {
		before, after, want string
	}{
		{"pin", "", "ping |"}, {"pin", " x", "ping | x"}, {"expo", "", "export |"}, {"ch", "", "checkpoint|"},
		{"put --s", " k v", "put --s| k v"}, {"put --sy", "", "put --sync |"}, {"put --sy", " k v", "put --sync | k v"},
		{"help mo", "", "help monitor |"}, {"put k pi", "", ""}, {"nonsense --", "", ""}, {"zz", "", ""}, {"get --ti", "", "get --timeout |"},
	} {
		line, pos, ok := s.complete(root, c.before+c.after, len(c.before))
		if c.want == "" {
			require.False(t, ok, c.before)
			continue
		}
		require.True(t, ok, c.before)
		require.Equal(t, c.want, line[:pos]+"|"+line[pos:], c.before)
	}
	require.Empty(t, out.String())
}

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
