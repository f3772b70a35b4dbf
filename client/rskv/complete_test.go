package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Completion must offer what is there, and not change what is typed already.
func TestShell_Complete(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	for _, name := range []string{"one.tsv", "other.tsv", ".hidden", "a b"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o755))
	one := &tool{socket: f.socket, timeout: timeoutDefault}
	defer func() { one.hangUp() }()
	s := newShell(one, &keys{typed: strings.NewReader("")})
	for _, c := range []struct {
		before, after, want string
	}{
		{"pin", "", "ping |"}, {"pin", " x", "ping | x"}, {"expo", "", "export |"}, {"ch", "", "checkpoint|"}, {"exi", "", "exi|"}, {"exit", "", "exit |"},
		{"put --s", " k v", "put --s| k v"}, {"put --sy", "", "put --sync |"}, {"put --sy", " k v", "put --sync | k v"},
		{"help mo", "", "help monitor |"}, {"put k pi", "", ""}, {"zz", "", ""}, {"get --ti", "", "get --timeout |"},
		{"put k v --if a", "", "put k v --if absent |"}, {"put --if=p", "", "put --if=present |"}, {"checkpoint --kind l", "", "checkpoint --kind log |"},
		{"import --format nd", "", "import --format ndjson |"},
		{"config g", "", "config get |"}, {"config mem", "", "config memory=|"}, {"config get m", "", "config get memory |"}, {"config set m", " 1GiB", "config set memory | 1GiB"},
		{"tasks st", "", "tasks st|"}, {"tasks ru", "", "tasks run |"}, {"get ", "", ""}, {"put 'a ", "", ""},
		{"import " + dir + "/on", "", "import " + dir + "/one.tsv |"}, {"import " + dir + "/o", "", "import " + dir + "/o|"},
		{"export " + dir + "/su", "", "export " + dir + "/sub/|"}, {"backup " + dir + "/.h", "", "backup " + dir + "/.hidden |"},
		{"import " + dir + "/a", "", ""}, {"get " + dir + "/o", "", ""}, {"import /no/such/dir/", "", ""},
	} {
		line, pos, ok := s.complete(c.before+c.after, len(c.before))
		if c.want == "" {
			require.False(t, ok, "%s became %s", c.before, line)
			continue
		}
		require.True(t, ok, c.before)
		require.Equal(t, c.want, line[:pos]+"|"+line[pos:], c.before)
	}
	one.hangUp()
	none := newShell(&tool{}, &keys{typed: strings.NewReader("")})
	_, _, ok := none.complete("config get mem", 14)
	require.False(t, ok, "without a daemon there are no names")
}

// What the shells of the system are told comes from the same place.
func TestRun_Complete(t *testing.T) {
	f := newFake(t)
	require.Equal(t, "memory=\n:6\n", rskv(t, f.socket, "", "__completeNoDesc", "--socket", f.socket, "config", "mem").stdout)
	require.Equal(t, "absent\npresent\n:4\n", rskv(t, f.socket, "", "__completeNoDesc", "put", "k", "--if", "").stdout)
	require.Equal(t, ":4\n", rskv(t, f.socket, "", "__completeNoDesc", "get", "").stdout, "keys are no files")
	require.Equal(t, ":0\n", rskv(t, f.socket, "", "__completeNoDesc", "import", "").stdout)
}
