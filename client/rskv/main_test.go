package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest/seeds"
	"rskv/ipc"
)

// result is what one run of the tool left behind.
type result struct {
	code           int
	stdout, stderr string
}

// rskv runs the tool against the daemon behind socket.
func rskv(t testing.TB, socket, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), append([]string{"--socket", socket}, args...), strings.NewReader(stdin), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// Scripts live by exit codes and exact output: a wrong code or one byte too
// many is a bug nobody sees on a terminal.
func TestRun_Commands(t *testing.T) {
	f := newFake(t)
	f.set("there", "old")
	f.set("bytes", "\xff\x00\n")
	f.set("empty", "")
	f.set("\xff", "binary key")
	for _, c := range []struct {
		args   string // separated by blanks
		stdin  string
		code   int
		stdout string
	}{
		{"get there", "", 0, "old"},
		{"get bytes", "", 0, "\xff\x00\n"},
		{"get empty", "", 0, ""},
		{"get absent", "", 1, ""},
		{"get --json there", "", 0, `{"key":"there","found":true,"value":"old"}` + "\n"},
		{"get --json bytes", "", 0, `{"key":"bytes","found":true,"value_base64":"/wAK"}` + "\n"},
		{"get --json absent", "", 1, `{"key":"absent","found":false}` + "\n"},
		{"get --hex ff", "", 0, "binary key"},
		{"get --hex --json ff", "", 0, `{"key_hex":"ff","found":true,"value":"binary key"}` + "\n"},
		{"exists there", "", 0, ""},
		{"exists absent", "", 1, ""},
		{"--json exists absent", "", 1, `{"key":"absent","found":false}` + "\n"},

		{"put a b", "", 0, ""},
		{"get a", "", 0, "b"},
		{"put a", "from stdin\n", 0, ""},
		{"get a", "", 0, "from stdin\n"},
		{"put a -", "", 0, ""},
		{"get a", "", 0, ""},
		{"put --if absent a x", "", 1, ""},
		{"put --if present a y --sync", "", 0, ""},
		{"put --if present absent y", "", 1, ""},
		{"get a", "", 0, "y"},
		{"put --json a z", "", 0, `{"key":"a","stored":true}` + "\n"},
		{"put -- -a -b", "", 0, ""},
		{"get -- -a", "", 0, "-b"},
		{"put --hex 2d61 c", "", 0, ""},
		{"get -- -a", "", 0, "c"},

		{"cas a z zz", "", 0, ""},
		{"cas a z zzz", "", 1, ""},
		{"cas a - new", "zz", 0, ""},
		{"cas a new -", "newer", 0, ""},
		{"cas --absent a x", "", 1, ""},
		{"cas --absent fresh x", "", 0, ""},
		{"cas --delete fresh y", "", 1, ""},
		{"cas --delete fresh x --json", "", 0, `{"key":"fresh","swapped":true}` + "\n"},
		{"exists fresh", "", 1, ""},

		{"add n", "", 0, "1\n"},
		{"add n 41", "", 0, "42\n"},
		{"add n -50 --json", "", 0, `{"key":"n","sum":-8}` + "\n"},
		{"add -- n -1", "", 0, "-9\n"},
		{"append log one", "", 0, "3\n"},
		{"append log", "two", 0, "6\n"},
		{"append log - --json", "!", 0, `{"key":"log","length":7}` + "\n"},
		{"get log", "", 0, "onetwo!"},

		{"ttl log", "", 0, "never\n"},
		{"ttl log --json", "", 0, `{"key":"log","found":true,"ttl_ms":-1}` + "\n"},
		{"ttl absent", "", 1, ""},
		{"ttl absent --json", "", 1, `{"key":"absent","found":false}` + "\n"},
		{"expire log 90s", "", 0, ""},
		{"ttl log", "", 0, "1m30s\n"},
		{"expire log 1500us --json", "", 0, `{"key":"log","found":true}` + "\n"},
		{"ttl log --json", "", 0, `{"key":"log","found":true,"ttl_ms":2}` + "\n"},
		{"expire log never --sync", "", 0, ""},
		{"ttl log", "", 0, "never\n"},
		{"expire absent 1s", "", 1, ""},
		{"put --ttl 1h brief x", "", 0, ""},
		{"ttl brief", "", 0, "1h0m0s\n"},
		{"add --ttl 2s briefer", "", 0, "1\n"},
		{"ttl briefer", "", 0, "2s\n"},
		{"cas --absent --ttl 3s lock me", "", 0, ""},
		{"ttl lock", "", 0, "3s\n"},
		{"mput --ttl 4s b1 x b2 y", "", 0, ""},
		{"ttl b2", "", 0, "4s\n"},
		{"del brief briefer lock b1 b2", "", 0, ""},

		{"mput m1 v\t1 m2 v2", "", 0, ""},
		{"mget m1 absent m2", "", 1, "m1\tv\\t1\nm2\tv2\n"},
		{"mget empty m2", "", 0, "empty\t\nm2\tv2\n"},
		{"mget --json m2 absent", "", 1, `{"key":"m2","found":true,"value":"v2"}` + "\n" + `{"key":"absent","found":false}` + "\n"},
		{"mget --hex 6d32", "", 0, "6d32\tv2\n"},
		{"mput --json m1 x", "", 0, `{"stored":1}` + "\n"},
		{"del m1", "", 0, ""},
		{"del m1", "", 1, ""},
		{"del m1 m2 --json", "", 1, `{"keys":2,"deleted":1}` + "\n"},
		{"del --blind m1", "", 0, ""},

		{"ping", "", 0, "pong\n"},
		{"sync", "", 0, ""},
		{"sync --json", "", 0, `{"durable":7}` + "\n"},
		{"stats", "", 0, "keys 8\nlog.backend none\n"},
		{"stats --json", "", 0, `{"keys":8,"log":{"backend":"none"}}` + "\n"},
		{"config", "", 0, "memory 32MiB\n"},
		{"config x=1 --json", "", 0, `{"memory":"32MiB","x":"1"}` + "\n"},
		{"config get", "", 0, "memory 32MiB\n"},
		{"config get memory --json", "", 0, `{"memory":"32MiB"}` + "\n"},
		{"config set x 1", "", 0, "x 1\n"},
		{"checkpoint --kind log --cookie c", "", 0, "checkpoint 0, 2 bytes in 3ms\n"},
		{"checkpoint --json", "", 0, `{"version":0,"durable":1,"bytes":2,"ms":3}` + "\n"},
	} {
		r := rskv(t, f.socket, c.stdin, strings.Split(c.args, " ")...)
		require.Equal(t, result{c.code, c.stdout, ""}, r, "rskv %s", c.args)
	}
}

// A usage error must be one sentence and exit code 2: a usage dump hides the
// reason, exit code 1 would read as "absent".
func TestRun_Errors(t *testing.T) {
	f := newFake(t)
	f.set("text", "text")
	for _, c := range []struct{ args, want string }{
		{"", "no command given"},
		{"frobnicate", `"frobnicate" is not a command`},
		{"get", "get takes KEY, 0 given"},
		{"get a b", "get takes KEY, 2 given"},
		{"get --nonsense a", "unknown flag: --nonsense"},
		{"get --timeout soon a", "invalid argument"},
		{"get --hex xyz", "is not hexadecimal"},
		{"get --hex=true ", "the key is empty"},
		{"put a b c", "put takes KEY [VALUE], 3 given"},
		{"put --if never a b", "must be absent or present"},
		{"put --ttl 0s a b", "want one as 90s or 1h30m, more than 0, or never"},
		{"put --ttl 5 a b", `"5" is no time to live`},
		{"cas --delete --ttl 5s text x", "goes with a new value"},
		{"expire a -1s", "unknown shorthand flag"},
		{"expire a", "expire takes KEY DURATION, 1 given"},
		{"cas a b", "cas takes KEY OLD NEW, 2 given"},
		{"cas a - -", "not both"},
		{"cas --absent --delete a b", "not both"},
		{"add a many", "not a 64-bit integer"},
		{"add text 1", "NotInteger"},
		{"mput a", "KEY VALUE pairs"},
		{"ping x", "ping takes no arguments"},
		{"config novalue", "NAME=VALUE"},
		{"config get memory bogus", `"bogus" is no setting`},
		{"config set x", "config set takes NAME VALUE, 1 given"},
		{"gte k", `"gte" is not a command; is it get or ttl?`},
		{"checkpoint --kind half", "full, log, index or snapshot"},
		{"compact --until -1", "must not be below 0"},
		{"tasks stop", "tasks takes nothing, or stop, start or run and a NAME"},
		{"tasks halt compact", "is not stop, start or run"},
		{"slowlog --count -1", "--count is below 0"},
		{"monitor --every 0", "--every is below 1"},
		{"scrub --rate fast", "is not a number of bytes"},
		{"scrub --rate -1", "is not a number of bytes"},
		{"scrub --status --stop", "not both"},
		{"backup", "backup takes FILE, 0 given"},
		{"backup /no/such/dir/file", "no such file"},
		{"import", "import takes SRC, 0 given"},
		{"import /no/such/file", "no such file"},
		{"import --format xml .", "must be tree, ndjson or tsv"},
		{"import --format tsv .", "is a directory"},
		{"import --verify -", "stdin"},
		{"export x --like a --keys-from b", "--like or --keys-from, not both"},
		{"export --keys-from - --format tree -", "needs a directory"},
		{"get " + strings.Repeat("k", ipc.MaxKey+1), "KeyTooLarge"},
	} {
		r := rskv(t, f.socket, "", strings.Split(c.args, " ")...)
		if c.args == "" {
			r = rskv(t, f.socket, "")
		}
		require.Equal(t, exitError, r.code, "rskv %s", c.args)
		require.Empty(t, r.stdout, "rskv %s", c.args)
		require.Contains(t, r.stderr, c.want, "rskv %s", c.args)
		require.Equal(t, 1, strings.Count(r.stderr, "\n"), "one sentence: %q", r.stderr)
		require.True(t, strings.HasPrefix(r.stderr, "rskv: "), r.stderr)
	}
}

// Without a daemon every command must say so at once, and not wait.
func TestRun_NoDaemon(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.Listen("unix", stale)
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for _, socket := range []string{filepath.Join(dir, "absent"), stale} {
		for _, args := range [][]string{{"get", "k"}, {"ping"}, {"import", dir}} {
			r := rskv(t, socket, "", args...)
			require.Equal(t, exitError, r.code)
			require.Equal(t, "rskv: no daemon listens on "+socket+" (--socket or RSKV_SOCKET names another)\n", r.stderr)
		}
	}
	require.Equal(t, "rskv: "+dir+" is not a socket (--socket or RSKV_SOCKET names another)\n", rskv(t, dir, "", "ping").stderr)
	r := rskv(t, filepath.Join(dir, strings.Repeat("x", 120)), "", "ping")
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.stderr, "the system allows 107")
}

// A daemon that never answers must not hold a script for ever, nor Ctrl-C.
func TestRun_Timeout(t *testing.T) {
	dir := t.TempDir()
	plant(t, dir, map[string]string{"a": "1"})
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	defer l.Close() // it never accepts: the kernel's backlog takes the connection
	for _, args := range [][]string{{"get", "k"}, {"import", dir}, {"verify", dir}} {
		r := rskv(t, socket, "", append(args, "--timeout", "50ms")...)
		require.Equal(t, exitError, r.code)
		require.Contains(t, r.stderr, "rskv: no answer within 50ms (--timeout)\n")
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	var out, stderr bytes.Buffer
	code := run(ctx, []string{"--socket", socket, "get", "k"}, strings.NewReader(""), &out, &stderr)
	require.Equal(t, exitError, code)
	require.Equal(t, "rskv: interrupted\n", stderr.String())
}

// RSKV_SOCKET must reach the tool, and --socket must win over it.
func TestRun_SocketVariable(t *testing.T) {
	f := newFake(t)
	t.Setenv("RSKV_SOCKET", f.socket)
	var out, stderr bytes.Buffer
	require.Equal(t, 0, run(t.Context(), []string{"ping"}, strings.NewReader(""), &out, &stderr))
	t.Setenv("RSKV_SOCKET", filepath.Join(t.TempDir(), "absent"))
	require.Equal(t, 2, run(t.Context(), []string{"ping"}, strings.NewReader(""), &out, &stderr))
	require.Equal(t, 0, rskv(t, f.socket, "", "ping").code)
}

// Help and version must work without a daemon.
func TestRun_Help(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"--help"}, {"get", "--help"}, {"version"}, {"version", "--json"}, {"completion", "bash"}} {
		r := rskv(t, "/nonexistent", "", args...)
		require.Equal(t, 0, r.code, "%v: %s", args, r.stderr)
		require.NotEmpty(t, r.stdout)
		require.Empty(t, r.stderr)
	}
}

// The largest value must pass through stdin and stdout unchanged, one byte more
// must be refused before anything is sent.
func TestRun_LargeValue(t *testing.T) {
	f := newFake(t)
	value := noise(seeds.New(t), ipc.MaxValue)
	if !testing.Short() { // seconds under -race
		require.Equal(t, result{}, rskv(t, f.socket, value, "put", "big"))
		r := rskv(t, f.socket, "", "get", "big")
		require.True(t, r.stdout == value, "%d bytes came back of %d", len(r.stdout), len(value))
	}
	r := rskv(t, f.socket, value+"x", "put", "big")
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.stderr, "more bytes than a value may have")
}

// noise returns n random bytes that depend on seed.
func noise(seed uint64, n int) string {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24), byte(seed >> 32)}).Read(b)
	return string(b)
}

// randomTree plants files of all the sizes that matter and returns how many.
func randomTree(t testing.TB, dir string) int {
	t.Helper()
	r := seeds.Rand(t)
	large := 3 * batchBytes
	if testing.Short() {
		large /= 8
	}
	files := map[string]string{"empty": "", "large": noise(r.Uint64(), large), "odd \t\n\\ name": "x", "\xff": "not UTF-8"}
	for i := range 3 * batchKeys {
		files[fmt.Sprintf("d%d/f%d", i%7, i)] = noise(r.Uint64(), r.IntN(1<<r.IntN(13)))
	}
	plant(t, dir, files)
	return len(files)
}

// What went in must come out of every format byte for byte.
func TestRun_ImportVerifyExport(t *testing.T) {
	f := newFake(t)
	src := t.TempDir()
	n := randomTree(t, src)

	r := rskv(t, f.socket, "", "import", src, "--prefix", "go/", "--json", "--sync", "--verify")
	require.Equal(t, "", r.stderr)
	require.Equal(t, 0, r.code)
	var sums [2]tally
	dec := json.NewDecoder(strings.NewReader(r.stdout))
	require.NoError(t, dec.Decode(&sums[0]))
	require.NoError(t, dec.Decode(&sums[1]))
	for i, what := range []string{"imported", "verified"} {
		require.Equal(t, what, sums[i].What)
		require.EqualValues(t, n, sums[i].Keys)
		require.EqualValues(t, 0, sums[i].Failed+sums[i].Missing+sums[i].Differ)
		require.Positive(t, sums[i].MBps)
	}
	require.Equal(t, sums[0].Bytes, sums[1].Bytes)
	require.Len(t, f.all(), n)

	dir := filepath.Join(t.TempDir(), "new")
	r = rskv(t, f.socket, "", "export", dir, "--like", src, "--prefix", "go/")
	require.Equal(t, 0, r.code, r.stderr)
	require.Contains(t, r.stdout, fmt.Sprintf("exported %d keys", n))
	require.Equal(t, 0, rskv(t, f.socket, "", "verify", dir, "--prefix", "go/").code)

	for _, name := range []string{"x.ndjson", "x.tsv"} {
		file := filepath.Join(t.TempDir(), name)
		require.Equal(t, 0, rskv(t, f.socket, "", "export", file, "--like", src, "--prefix", "go/").code)
		g := newFake(t)
		r = rskv(t, g.socket, "", "import", file)
		require.Equal(t, 0, r.code, r.stderr)
		require.Equal(t, f.all(), g.all())
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		g = newFake(t)
		require.Equal(t, 0, rskv(t, g.socket, string(text), "import", "-").code)
		require.Equal(t, f.all(), g.all())
		r = rskv(t, g.socket, "", "export", "-", "--like", file, "--format", formatOf(name))
		require.Equal(t, 0, r.code, r.stderr)
		require.True(t, r.stdout == string(text), "the second export differs")
		require.Contains(t, r.stderr, "exported")
	}
}

func formatOf(name string) string { return string(formatByName(name)) }

// A list of keys is the third way to say what to export.
func TestRun_ExportKeysFrom(t *testing.T) {
	f := newFake(t)
	f.set("a", "1")
	f.set("b\n", "2")
	r := rskv(t, f.socket, "a\n\nabsent\n", "export", "-", "--keys-from", "-")
	require.Equal(t, 1, r.code)
	require.Equal(t, "a\t1\n", r.stdout)
	require.Contains(t, r.stderr, `"absent": missing`)
	require.Contains(t, r.stderr, "1 missing")
	list := filepath.Join(t.TempDir(), "list")
	require.NoError(t, os.WriteFile(list, []byte("620a\n61\n"), 0o644))
	r = rskv(t, f.socket, "", "export", "-", "--keys-from", list, "--hex", "--format", "ndjson")
	require.Equal(t, 0, r.code, r.stderr)
	require.Equal(t, `{"key":"b\n","value":"2"}`+"\n"+`{"key":"a","value":"1"}`+"\n", r.stdout)
}

// A verify that overlooks one wrong byte, or one missing key, proves nothing.
func TestRun_VerifyFindsDifferences(t *testing.T) {
	f := newFake(t)
	src := t.TempDir()
	plant(t, src, map[string]string{"same": "12345", "byte": "12345", "short": "12345", "gone": "12345", "empty": ""})
	require.Equal(t, 0, rskv(t, f.socket, "", "import", src).code)
	f.set("byte", "12x45")
	f.set("short", "1234")
	f.remove("gone")
	r := rskv(t, f.socket, "", "verify", src)
	require.Equal(t, exitAbsent, r.code)
	require.Contains(t, r.stderr, `"byte": different: 5 bytes stored, 5 expected, the first difference at 2`)
	require.Contains(t, r.stderr, `"short": different: 4 bytes stored, 5 expected, the first difference at 4`)
	require.Contains(t, r.stderr, `"gone": missing`)
	require.Contains(t, r.stdout, "verified 2 keys")
	require.Contains(t, r.stdout, "1 missing, 2 different")
	f.remove("empty")
	require.Contains(t, rskv(t, f.socket, "", "verify", src).stdout, "2 missing, 2 different")
}

// What cannot be read or stored must be named and must not hide behind exit
// code 0; the rest must still go in.
func TestRun_ImportFailures(t *testing.T) {
	f := newFake(t)
	src := t.TempDir()
	files := map[string]string{}
	for i := range 30 {
		files[fmt.Sprintf("good%02d", i)] = "v"
	}
	plant(t, src, files)
	for i := range namedMax + 5 {
		require.NoError(t, os.Symlink("nowhere", filepath.Join(src, fmt.Sprintf("broken%02d", i))))
	}
	r := rskv(t, f.socket, "", "import", src)
	require.Equal(t, exitError, r.code)
	require.Len(t, f.all(), 30)
	require.Contains(t, r.stderr, "broken00: no such file")
	require.Contains(t, r.stderr, "rskv: 25 of the keys were not imported\n")
	require.Equal(t, namedMax+1, strings.Count(r.stderr, "\n"))
	require.Contains(t, r.stdout, "imported 30 keys")

	// The daemon refuses one key: the others go in.
	f.lies(func(c *ipc.Call) *ipc.Error {
		if string(c.Key) == "bad" {
			return &ipc.Error{Code: ipc.CodeValueTooLarge, Message: "in this daemon"}
		}
		return nil
	})
	r = rskv(t, f.socket, "bad\tx\nk\tv\n", "import", "-")
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.stderr, `"bad": ValueTooLarge: in this daemon`)
	require.Equal(t, "v", f.all()["k"])

	// The daemon can take no more: there is no point in going on.
	f.lies(func(c *ipc.Call) *ipc.Error {
		if string(c.Key) == "k3" {
			return &ipc.Error{Code: ipc.CodeDiskFull, Message: "no room"}
		}
		return nil
	})
	var text strings.Builder
	for i := range 100 * batchKeys {
		fmt.Fprintf(&text, "k%d\tv\n", i)
	}
	r = rskv(t, f.socket, text.String(), "import", "-")
	require.Equal(t, exitError, r.code)
	require.Contains(t, r.stderr, "rskv: DiskFull: no room\n")
	require.Less(t, len(f.all()), 50*batchKeys)
}

// Answers too large to come together must be fetched one by one.
func TestRun_VerifyAnswerTooLarge(t *testing.T) {
	f := newFake(t)
	src := t.TempDir()
	plant(t, src, map[string]string{"a": "1", "b": "2"})
	require.Equal(t, 0, rskv(t, f.socket, "", "import", src).code)
	f.lies(func(c *ipc.Call) *ipc.Error {
		if c.Method == ipc.MethodMGet {
			return &ipc.Error{Code: ipc.CodeAnswerTooLarge}
		}
		return nil
	})
	r := rskv(t, f.socket, "", "verify", src)
	require.Equal(t, 0, r.code, r.stderr)
	f.remove("b")
	r = rskv(t, f.socket, "", "verify", src)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.stdout, "1 missing")
}

// Of several values of one key the last must win, whatever is in flight.
func TestRun_ImportKeepsOrder(t *testing.T) {
	f := newFake(t)
	var text strings.Builder
	for i := range 10 * batchKeys {
		fmt.Fprintf(&text, "k%d\t%d\n", i%3, i)
	}
	require.Equal(t, 0, rskv(t, f.socket, text.String(), "import", "-").code)
	for i := range 3 {
		last := 10*batchKeys - 1
		for last%3 != i {
			last--
		}
		require.Equal(t, fmt.Sprint(last), f.all()[fmt.Sprintf("k%d", i)])
	}
}
