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
	tool := &tool{stdin: strings.NewReader("from stdin"), stdout: &out, stderr: &stderr, socket: f.socket, timeout: timeoutDefault}
	defer func() { tool.hangUp() }()
	k := &keys{typed: strings.NewReader("put 'a key' \"b\\n\"\r" + // quotes
		"get  'a key'\r" +
		"\r" +
		"exis\t a\\ key\r" + // completed to exists
		"\x1b[A\x1b[A\r" + // the get once more
		"put x 'open\r" +
		"get absent\r" +
		"sta\t\r" + // stats
		"add n -5\r" +
		"bogus\r" +
		"rm\x7f\x7fping\x01\x05\r" + // edited
		"del 'a key'\x03" + // thought better of
		"\x03\r" +
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
	require.Contains(t, k.screen.String(), "Ctrl-D or exit leaves")

	k = &keys{typed: strings.NewReader("ping\x04\x15\x04")}
	require.NoError(t, newShell(tool, k).run(func() (func(), error) { return func() {}, nil }, nil), "Ctrl-D leaves")
}
