package bench_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What the documents show is tried. Every line of an indented block, and of a
// block of code in a language, is
//
//	a command     run, in a copy of the repository, with a daemon of its own
//	elsewhere     named below with the reason; a command of this repository is
//	              still asked whether it knows its flags, a make target whether
//	              it is there

// elsewhere says of lines why they are not run here: a document, what a line
// begins with, and the reason. One that fits no line is too many.
var elsewhere = []struct{ document, begins, reason string }{
	{"README.md", "make demo", "a stage of .ci/run"},
	{"README.md", "32 MiB of memory; it", "what make demo does"},
	{"README.md", "restart, and is", "what make demo does"},
	{"README.md", "the middle of writes", "what make demo does"},
	{"README.md", "make test", "a stage of .ci/run"},
	{"README.md", "export RSKV_SOCKET=...", "the daemon here has another socket"},
	{"README.md", "alias rskv", "scripts have no aliases; the program is in PATH"},
	{"README.md", "rskv watch", "goes on until it is interrupted; the tests of client/rskv run it"},
	{"README.md", "rskv top", "needs a terminal; TestTop"},
	{"README.md", "rskv   ", "needs a terminal; TestShell"},
	{"README.md", "go mod edit", "TestModule"},
	{"README.md", "go mod tidy", "TestModule"},
	{"README.md", "make package", "a stage of .ci/run: container"},
	{"README.md", "dpkg -i", "the stage container"},
	{"README.md", "adduser", "the stage container"},
	{"README.md", "rskv put greeting hello ", "the stage container"},
	{"README.md", "curl", "the stage container"},
	{"README.md", "systemctl status", "the stage container"},
	{"README.md", "journalctl", "the stage container"},
	{"README.md", "make dev", "would run these tests"},
	{"README.md", "make pre-commit", "would run these tests"},
	{"README.md", "make fuzz", "a stage of .ci/run"},
	{"bench/README.md", "make bench", "takes minutes; the stage bench runs it small"},
	{"bench/README.md", "bin/rskv-bench", "measures for minutes"},
	{"bench/README.md", "rskv-bench", "measures for minutes, or compares files that are not there"},
	{"bench/README.md", "bin/rskv-peers", "measures for minutes, and is a module of its own"},
	{"bench/README.md", "cd bench/peers", "a module of its own, with databases to fetch"},
	{"client/python/README.md", "apt install", "prepare in .ci/run"},
	{"client/python/README.md", "pip install", "asks a registry"},
	{"daemon/OPERATIONS.md", "rskvd config check --config F", "F is no file"},
	{"daemon/OPERATIONS.md", "socket_mode", "a file of settings; TestRoles"},
	{"daemon/OPERATIONS.md", "roles ", "a file of settings"},
	{"daemon/OPERATIONS.md", "more_sockets", "a file of settings"},
	{"daemon/OPERATIONS.md", "curl", "the admin socket of a service; the stage container"},
	{"daemon/OPERATIONS.md", "rskvd --admin-listen", "goes on until it is interrupted"},
	{"daemon/OPERATIONS.md", "systemctl", "the stage container"},
	{"daemon/OPERATIONS.md", "mv /var/lib", "the stage container"},
	{"daemon/OPERATIONS.md", "rskvd restore /tmp/monday.bak /var/lib", "the stage container"},
	{"daemon/OPERATIONS.md", "dpkg -i", "the stage container"},
	{"systemd/README.md", "make install", "TestInstall"},
	{"systemd/README.md", "systemd-sysusers", "changes the machine; the stage container"},
	{"systemd/README.md", "systemctl", "the stage container"},
}

// prose are documents whose indented lines are no commands.
var prose = map[string]string{
	"engine/FORMAT.md": "formulas; engine/format_test.go",
	"ipc/PROTOCOL.md":  "messages; golden_test.go, and the vectors of the three clients",
}

// languages says who runs the blocks of a language. sh, python and js of
// README.md are run here.
var languages = map[string]string{
	"README.md go": "TestModule", "client/python/README.md python": "client/python/tests/test_readme.py", "client/node/README.md js": "client/node/test/readme.test.js",
	"engine/FORMAT.md hex manifest": "engine/format_test.go", "engine/FORMAT.md hex log": "engine/format_test.go",
	"engine/FORMAT.md hex image": "engine/format_test.go", "engine/FORMAT.md hex imaged log": "engine/format_test.go",
	"engine/FORMAT.md hex image end": "engine/format_test.go", "ipc/PROTOCOL.md ": "golden_test.go",
}

// block is lines of code in a document.
type block struct {
	language string // "sh" if it is indented
	lines    []string
}

// blocks cuts a document. Indented lines with empty ones between them are one block; a list's
// continuation, which follows a line that is not empty, is none.
func blocks(text string) (all []block) {
	const none, fenced, indented = 0, 1, 2
	state, blank := none, true
	add := func(line string) { b := &all[len(all)-1]; b.lines = append(b.lines, line) }
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		code, isIndented := strings.CutPrefix(line, "    ")
		switch {
		case strings.HasPrefix(line, "```") && state == fenced:
			state = none
		case strings.HasPrefix(line, "```"):
			state = fenced
			all = append(all, block{language: line[3:]})
		case state == fenced:
			add(line)
		case isIndented && (state == indented || blank):
			if state != indented {
				state = indented
				all = append(all, block{language: "sh"})
			}
			add(code)
		case line == "" && state == indented:
			add("")
		default:
			state = none
		}
		blank = line == ""
	}
	return all
}

// Commands that are taken for prose are not run, and prose that is taken for commands fails.
func TestDocuments_Blocks(t *testing.T) {
	text := "# Title\n\n    one\n\n    two\n      three\n\nprose\n - a list\n    goes on\n\n```go\nfour\n\n    five\n```\n    six\nseven\n    eight\n\n    nine\n"
	require.Equal(t, []block{{"sh", []string{"one", "", "two", "  three", ""}}, {"go", []string{"four", "", "    five"}}, {"sh", []string{"nine"}}}, blocks(text))
}

// documents lists the repository's.
func documents(t *testing.T) []string {
	cmd := exec.Command("git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "*.md")
	cmd.Dir = ".."
	out, err := cmd.Output()
	require.NoError(t, err)
	return strings.Fields(string(out))
}

// checkout is a copy of the repository's files with the programs in bin, made once
// for all tests.
func checkout(t *testing.T) string {
	dir, err := checkedOut()
	require.NoError(t, err)
	return dir
}

var checkedOut = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "rskvdoc")
	if err != nil {
		return "", err
	}
	atEnd = append(atEnd, func() { _ = os.RemoveAll(dir) })
	cmd := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("list the files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if err := copyFile(filepath.Join("..", name), filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	// They are built where everything else is, so that the compiler's cache has all but the links.
	cmd = exec.Command("go", "build", "-buildvcs=false", "-tags", "giouring", "-ldflags=-checklinkname=0", "-o", filepath.Join(dir, "bin")+"/",
		"./daemon/rskvd", "./client/rskv", "./bench/rskv-bench")
	cmd.Dir = ".."
	if out, err = cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return dir, nil
})

// copyFile copies a file, if it is there: one may be deleted, and not committed yet.
func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, info.Mode())
}

// atEnd is done when all tests have ended.
var atEnd []func()

func TestMain(m *testing.M) {
	code := m.Run()
	for _, f := range atEnd {
		f()
	}
	os.Exit(code)
}

// shell is a place to try a document in.
type shell struct {
	dir string
	env []string
}

// newShell starts a daemon for a document.
func newShell(t *testing.T, dir string) *shell {
	home, err := os.MkdirTemp("", "rskvdoc")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	s := &shell{dir: dir, env: []string{"HOME=" + home, "RSKV_SOCKET=" + filepath.Join(home, "s"), "TMPDIR=" + home}}
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH", "GOFLAGS", "GOPROXY", "GOSUMDB"} {
		out, err := exec.Command("go", "env", name).Output()
		require.NoError(t, err)
		s.env = append(s.env, name+"="+strings.TrimSpace(string(out)))
	}
	s.env = append(s.env, "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	daemon := exec.Command(filepath.Join(dir, "bin", "rskvd"), "--dir", filepath.Join(home, "data"), "--socket", filepath.Join(home, "s"), "--memory", "64MiB")
	var log bytes.Buffer
	daemon.Stdout, daemon.Stderr = &log, &log
	require.NoError(t, daemon.Start())
	t.Cleanup(func() {
		_ = daemon.Process.Signal(syscall.SIGTERM)
		_ = daemon.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	require.Eventually(t, func() bool { return s.run(t, "rskv ping") == nil }, 3*time.Minute, 20*time.Millisecond)
	return s
}

// run runs a script, which has to end well.
func (s *shell) run(t *testing.T, script string) error {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute) // installs build, beside who knows what
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script)
	cmd.Dir, cmd.Env = s.dir, s.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s\n%s", err, script, out)
	}
	return nil
}

// runs splits a block: what is run, and what is elsewhere.
func runs(document string, b block, used map[int]bool) (script string, left []string) {
	var lines []string
	for _, line := range b.lines {
		at := slices.IndexFunc(elsewhere, func(e struct{ document, begins, reason string }) bool {
			return e.document == document && strings.HasPrefix(strings.TrimSpace(line), e.begins)
		})
		if at >= 0 {
			used[at] = true
			left = append(left, strings.TrimSpace(line))
			continue
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n"), left
}

// A command in a document that does not work costs every reader who tries it.
func TestDocuments_Commands(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the programs, and tries every command of the documents")
	}
	dir := checkout(t)
	used := map[int]bool{}
	for _, document := range documents(t) {
		if prose[document] != "" {
			continue
		}
		text, err := os.ReadFile(filepath.Join("..", document))
		require.NoError(t, err)
		t.Run(document, func(t *testing.T) {
			var s *shell
			for _, b := range blocks(string(text)) {
				if b.language != "sh" {
					continue
				}
				script, left := runs(document, b, used)
				if s == nil {
					s = newShell(t, dir)
				}
				// What is written to /tmp is written to the test's own.
				script = strings.ReplaceAll(script, "/tmp/", strings.TrimPrefix(s.env[2], "TMPDIR=")+"/")
				script = strings.ReplaceAll(script, " && ", "\n") // -e passes over what stands before it
				require.NoError(t, s.run(t, script))
				for _, line := range left {
					require.NoError(t, s.ask(t, line))
				}
			}
		})
	}
	for i, e := range elsewhere {
		require.True(t, used[i], "no line of %s begins with %q", e.document, e.begins)
	}
}

// ask finds out whether a command that is not run is one at all: a make target
// that there is, a program of ours with flags that it has.
func (s *shell) ask(t *testing.T, line string) error {
	command, _, _ := strings.Cut(line, " #")
	words := strings.Fields(command)
	switch filepath.Base(words[0]) {
	case "make":
		return s.run(t, "make -n "+words[1]+" >/dev/null")
	case "rskv", "rskvd", "rskv-bench":
		want := filepath.Base(words[0])
		if len(words) > 1 && !strings.HasPrefix(words[1], "-") {
			want += " " + words[1] // an unknown command has the help of the program
		}
		return s.run(t, strings.TrimSpace(command)+" --help | grep '^  "+want+"' >/dev/null")
	}
	return nil
}

// A block of code in a language that nobody runs is right until it is not.
func TestDocuments_Languages(t *testing.T) {
	seen := map[string]bool{}
	for _, document := range documents(t) {
		text, err := os.ReadFile(filepath.Join("..", document))
		require.NoError(t, err)
		for _, b := range blocks(string(text)) {
			if b.language != "sh" {
				seen[document+" "+b.language] = true
			}
		}
	}
	for where := range languages {
		require.True(t, seen[where], "there is no block %s any more", where)
		delete(seen, where)
	}
	delete(seen, "README.md python")
	delete(seen, "README.md js")
	require.Empty(t, seen, "who runs these?")
}

// The programs of README.md in other languages: what a stranger copies first.
func TestDocuments_Programs(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the programs, and tries every command of the documents")
	}
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	s := newShell(t, checkout(t))
	for _, b := range blocks(string(text)) {
		program := strings.Join(b.lines, "\n") + "\n"
		switch b.language {
		case "python":
			const python = "/usr/bin/python3" // the one that Debian's python3-msgpack belongs to
			if exec.Command(python, "-c", "import msgpack").Run() != nil {
				t.Skip("python3-msgpack is not installed")
			}
			require.NoError(t, os.WriteFile(filepath.Join(s.dir, "readme.py"), []byte(program), 0o644))
			require.NoError(t, s.run(t, "PYTHONPATH=client/python "+python+" readme.py && [ $(rskv get k) = v ] && rskv del k"))
		case "js":
			if _, err := exec.LookPath("npm"); err != nil {
				t.Skip("npm is not installed")
			}
			app := filepath.Join(s.dir, "app")
			require.NoError(t, os.Mkdir(app, 0o755))
			require.NoError(t, os.WriteFile(filepath.Join(app, "readme.mjs"), []byte(program), 0o644))
			require.NoError(t, s.run(t, "cd app && npm install --offline --no-audit --no-fund ../client/node && node readme.mjs && [ $(rskv get k) = v ]"))
		}
	}
}

// Another module must get what README.md says: with these two commands the
// client, without flags; a daemon for its tests; and the engine with its flags.
func TestModule(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes a module that builds most of this one")
	}
	text, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	var snippet, commands string
	for _, b := range blocks(string(text)) {
		if b.language == "go" {
			snippet = strings.Join(b.lines, "\n\t")
		}
		for _, line := range b.lines {
			if strings.HasPrefix(line, "go mod ") {
				commands += line + "\n"
			}
		}
	}
	require.NotEmpty(t, snippet)
	require.Contains(t, commands, "/path/to/checkout")
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write("main.go", `package main

import (
	"context"
	"fmt"
	"rskv/client"
)

func main() { fmt.Println(run(context.Background())) }

func run(ctx context.Context) (bool, string, error) {
	`+snippet+`
	return stored, string(value), err
}
`)
	write("main_test.go", `package main

import (
	"testing"
	"rskv/client/rskvtest"
)

func TestRun(t *testing.T) {
	s := rskvtest.NewServer(t)
	t.Setenv("RSKV_SOCKET", s.Socket())
	stored, value, err := run(t.Context())
	if !stored || value != "v" || err != nil {
		t.Fatal(stored, value, err)
	}
	if err := s.Crash(); err != nil {
		t.Fatal(err)
	}
}
`)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "embedded"), 0o755))
	write("embedded/main.go", `package main

import (
	"fmt"
	"rskv/engine"
)

func main() {
	s, err := engine.Open(engine.Options{Dir: "store"})
	if err == nil {
		fmt.Println(s.Info().Backend)
		err = s.Close()
	}
	if err != nil {
		panic(err)
	}
}
`)
	script := "export GOFLAGS=-buildvcs=false\ngo mod init example.org/app\n" + strings.ReplaceAll(commands, "/path/to/checkout", root) + `
go vet ./...
go build -o app .
go test .
go version -m app | grep rskv
go build -o plain ./embedded && ./plain
go build -tags giouring -ldflags=-checklinkname=0 -o ring ./embedded && ./ring
! go version -m app | grep -E 'giouring|testify'
`
	s := &shell{dir: dir, env: os.Environ()}
	require.NoError(t, s.run(t, script))
}

// What `make install` puts in place must be all that the documents speak of.
func TestInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the programs and their manual")
	}
	dest := t.TempDir()
	s := &shell{dir: checkout(t), env: append(os.Environ(), "GOFLAGS=-buildvcs=false")}
	require.NoError(t, s.run(t, "make -s install DESTDIR="+dest+" PREFIX=/usr VERSION=0.0.1"))
	for _, name := range []string{
		"usr/bin/rskv", "usr/bin/rskvd", "usr/share/man/man1/rskv.1", "usr/share/man/man1/rskvd.1", "usr/share/man/man1/rskv-config-set.1", "usr/share/bash-completion/completions/rskv",
		"usr/share/zsh/site-functions/_rskv", "usr/share/fish/vendor_completions.d/rskv.fish", "usr/lib/systemd/system/rskvd.service",
		"usr/lib/systemd/system/rskvd.socket", "usr/lib/sysusers.d/rskv.conf", "usr/lib/tmpfiles.d/rskv.conf", "etc/rskv/rskvd.toml",
	} {
		require.FileExists(t, filepath.Join(dest, name))
	}
	unit, err := os.ReadFile(filepath.Join(dest, "usr/lib/systemd/system/rskvd.service"))
	require.NoError(t, err)
	require.Contains(t, string(unit), "/usr/bin/rskvd")
	require.NoError(t, s.run(t, "bash -n "+dest+"/usr/share/bash-completion/completions/rskv"))
}
