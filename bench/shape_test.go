package bench_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// The shape of the repository: what stands at its top level, and which package
// may import which. Arrows point down:
//
//	client/rskv     daemon/rskvd      bench    client/rskvtest
//	    |               |               |  (everything that is not a program;
//	  client          daemon               rskvtest: client, daemon and iotest)
//	    |             /     \
//	   ipc  <--------       engine
//	                          |
//	        manifest   index   hlog
//	              \      |    /    \
//	               record      epoch     invariant
//	                    ioring (daemon, engine, hlog, manifest; index, timers, cache for their memory)
//
// A key ending in /... stands for the package and all below it. A package that
// the table does not name is a violation too, so that a new one is a decision.
var mayImport = map[string][]string{
	"rskv/client/rskv":               {"rskv/client", "rskv/ipc"},
	"rskv/client":                    {"rskv/ipc"},
	"rskv/client/rskvtest":           {"rskv/client", "rskv/daemon", "rskv/ioring/iotest"}, // a daemon in tests of clients
	"rskv/client/cookbook":           {},                                                   // a test
	"rskv/client/cookbook/...":       {"rskv/client"},
	"rskv/ipc":                       {},
	"rskv/daemon/rskvd":              {"rskv/daemon", "rskv/engine", "rskv/ioring"}, // the offline commands read a store without a daemon
	"rskv/daemon":                    {"rskv/ipc", "rskv/engine", "rskv/ioring", "rskv/daemon/admin"},
	"rskv/daemon/admin":              {},
	"rskv/daemon/deploy":             {}, // files, and their test
	"rskv/systemd":                   {}, // the same
	"rskv/engine":                    {"rskv/engine/internal/...", "rskv/ioring"},
	"rskv/engine/internal/manifest":  {"rskv/engine/internal/record", "rskv/engine/internal/invariant", "rskv/ioring"},
	"rskv/engine/internal/timers":    {"rskv/engine/internal/record", "rskv/ioring"},
	"rskv/engine/internal/cache":     {"rskv/engine/internal/record", "rskv/ioring"},
	"rskv/engine/internal/index":     {"rskv/engine/internal/record", "rskv/engine/internal/epoch", "rskv/engine/internal/invariant", "rskv/ioring"},
	"rskv/engine/internal/ordered":   {"rskv/engine/internal/epoch", "rskv/ioring"},
	"rskv/engine/internal/hlog":      {"rskv/engine/internal/record", "rskv/engine/internal/epoch", "rskv/engine/internal/invariant", "rskv/ioring"},
	"rskv/engine/internal/record":    {"rskv/engine/internal/invariant"},
	"rskv/engine/internal/epoch":     {"rskv/engine/internal/invariant"},
	"rskv/engine/internal/invariant": {},
	"rskv/ioring":                    {},
	"rskv/ioring/iotest":             {"rskv/ioring", "rskv/ioring/iotest/seeds"},
	"rskv/ioring/iotest/faultfs":     {"rskv/ioring/iotest/mounts"},
	"rskv/ioring/iotest/loopfs":      {"rskv/ioring/iotest/mounts"},
	"rskv/ioring/iotest/mounts":      {},
	"rskv/ioring/iotest/seeds":       {},
	"rskv/ioring/iotest/sim":         {"rskv/ioring"},
	"rskv/bench/...":                 {"rskv/bench/...", "rskv/client", "rskv/ipc", "rskv/engine", "rskv/ioring", "rskv/daemon"},
}

// mayNotReach says what a package may not pull in by any way. Left: the package;
// right: what none of its dependencies may be or lie below.
var mayNotReach = map[string][]string{
	"rskv/client":      {"rskv/engine", "rskv/ioring", "rskv/daemon", giouring},
	"rskv/client/rskv": {"rskv/engine", "rskv/ioring", "rskv/daemon", giouring},
	"rskv/ipc":         {"rskv/engine", "rskv/ioring", giouring},
}

const giouring = "github.com/pawelgaczynski/giouring"

// topLevel holds the names allowed at the top of the repository, besides those
// that begin with a dot.
var topLevel = []string{
	"go.mod", "go.sum", "daemon", "ioring", "engine", "ipc", "client", "systemd", "bench", "Makefile", "README.md",
}

// banned finds what no tracked file may say: notes to oneself, and paths of the
// machine a line happened to be written on. It is put together from parts
// because this file is tracked as well.
var banned = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b|(?i:\bnot (yet )?imple` + `mented\b)|` +
	`(^|[\s"'` + "`" + `(=:])/(work|root)` + `/`)

// listed is the part of `go list -json` that is looked at.
type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
}

// covers reports whether import path is, or with "/..." lies below, pattern.
func covers(pattern, importPath string) bool {
	base, below := strings.CutSuffix(pattern, "/...")
	return importPath == base || below && strings.HasPrefix(importPath, base+"/")
}

func coversAny(patterns []string, importPath string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return covers(p, importPath) })
}

// violations returns one sentence for each broken rule among packages.
func violations(packages []listed) []string {
	var bad []string
	for _, p := range packages {
		if !covers("rskv/...", p.ImportPath) {
			continue
		}
		known := false
		for from, to := range mayImport {
			if !covers(from, p.ImportPath) {
				continue
			}
			known = true
			for _, dep := range p.Imports {
				if covers("rskv/...", dep) && !coversAny(to, dep) {
					bad = append(bad, fmt.Sprintf("%s must not import %s", p.ImportPath, dep))
				}
			}
		}
		if !known {
			bad = append(bad, fmt.Sprintf("%s is not in the table of packages", p.ImportPath))
		}
		for _, dep := range p.Deps {
			for _, never := range mayNotReach[p.ImportPath] {
				if covers(never+"/...", dep) {
					bad = append(bad, fmt.Sprintf("%s must not pull in %s", p.ImportPath, dep))
				}
			}
		}
		testing := slices.ContainsFunc(p.Imports, func(i string) bool { return covers("rskv/ioring/iotest/...", i) })
		if testing && !coversAny([]string{"rskv/ioring/...", "rskv/client/rskvtest"}, p.ImportPath) {
			bad = append(bad, p.ImportPath+" imports the test devices outside of its tests")
		}
		if slices.Contains(p.Imports, "rskv/client/rskvtest") {
			bad = append(bad, p.ImportPath+" imports rskvtest outside of its tests")
		}
	}
	slices.Sort(bad)
	return slices.Compact(bad)
}

// fileViolations returns what is wrong with one tracked file.
func fileViolations(name string, text []byte) []string {
	var bad []string
	top, _, _ := strings.Cut(name, "/")
	if top[0] != '.' && !slices.Contains(topLevel, top) {
		bad = append(bad, fmt.Sprintf("%s: %s is not among the agreed top-level names", name, top))
	}
	if path.Ext(name) == ".go" {
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ImportsOnly)
		if err != nil {
			return append(bad, err.Error())
		}
		for _, spec := range file.Imports {
			imported, _ := strconv.Unquote(spec.Path.Value)
			ring, _ := path.Match("ioring/ring*.go", name)
			if covers(giouring+"/...", imported) && !ring {
				bad = append(bad, fmt.Sprintf("%s: only ioring/ring*.go may import giouring", name))
			}
		}
	}
	if !utf8.Valid(text) || bytes.IndexByte(text, 0) >= 0 {
		return bad // binary: golden bytes, fuzz seeds
	}
	for i, line := range strings.Split(string(text), "\n") {
		if word := banned.FindString(line); word != "" {
			bad = append(bad, fmt.Sprintf("%s:%d: says %q", name, i+1, strings.TrimSpace(word)))
		}
	}
	return bad
}

// A checker that finds nothing would keep nothing in shape.
func TestShape_CheckerFindsViolations(t *testing.T) {
	for _, c := range []struct {
		name string
		pkg  listed
		want string // "" for none
	}{
		{"down", listed{ImportPath: "rskv/client", Imports: []string{"rskv/ipc", "fmt"}}, ""},
		{"internal", listed{ImportPath: "rskv/engine", Imports: []string{"rskv/engine/internal/hlog"}}, ""},
		{"other module", listed{ImportPath: "example.org/x", Imports: []string{"rskv/engine"}}, ""},
		{"up", listed{ImportPath: "rskv/engine", Imports: []string{"rskv/daemon"}}, "rskv/engine must not import rskv/daemon"},
		{"sideways", listed{ImportPath: "rskv/engine/internal/index", Imports: []string{"rskv/engine/internal/hlog"}}, "must not import rskv/engine/internal/hlog"},
		{"wire knows engine", listed{ImportPath: "rskv/ipc", Imports: []string{"rskv/engine"}}, "must not import rskv/engine"},
		{"unknown package", listed{ImportPath: "rskv/engine/internal/util"}, "not in the table"},
		{"pulls in", listed{ImportPath: "rskv/client", Deps: []string{giouring}}, "must not pull in"},
		{"pulls in below", listed{ImportPath: "rskv/client/rskv", Deps: []string{"rskv/engine/internal/hlog"}}, "must not pull in"},
		{"test daemon", listed{ImportPath: "rskv/bench", Imports: []string{"rskv/client/rskvtest"}}, "outside of its tests"},
		{"test device", listed{ImportPath: "rskv/bench", Imports: []string{"rskv/ioring/iotest"}}, "test devices"},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, violations([]listed{c.pkg}), c.want) })
	}
	for _, c := range []struct{ name, file, text, want string }{
		{"clean", "daemon/x.go", "package daemon\n", ""},
		{"dotfile", ".ci/run", "echo", ""},
		{"top level", "tools/x.go", "package tools\n", "tools is not among"},
		{"giouring in ring", "ioring/ring_linux.go", "package ioring\nimport \"" + giouring + "\"\n", ""},
		{"giouring elsewhere", "engine/x.go", "package engine\nimport \"" + giouring + "\"\n", "only ioring/ring"},
		{"note", "engine/x.go", "package engine\n// TO" + "DO: more\n", "engine/x.go:2"},
		{"stub", "README.md", "Not Imple" + "mented.", "README.md:1"},
		{"machine path", "bench/README.md", "run in /work" + "/main", "/work"},
		{"machine path in quotes", "bench/x.txt", `"/root` + `/x"`, "/root"},
		{"similar path", "systemd/x", "/var/work" + "/x ./root" + "/y", ""},
		{"similar word", "x.go", "package x // TO" + "DOS", "x.go is not among"},
		{"binary", "ipc/testdata/x", "\x00 TO" + "DO", ""},
	} {
		t.Run(c.name, func(t *testing.T) { expect(t, fileViolations(c.file, []byte(c.text)), c.want) })
	}
}

func expect(t *testing.T, got []string, want string) {
	t.Helper()
	if (len(got) == 0) != (want == "") || !strings.Contains(strings.Join(got, "\n"), want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

// An import against the arrows would tie together what is kept apart, the
// client to the engine above all.
func TestShape_ImportArrows(t *testing.T) {
	for _, tags := range []string{"", "giouring"} {
		cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Deps,Standard", "-tags", tags, "./...")
		cmd.Dir = ".."
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v\n%s", err, stderr.String())
		}
		var packages []listed
		for dec := json.NewDecoder(bytes.NewReader(out)); ; {
			var p listed
			if err := dec.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			packages = append(packages, p)
		}
		if len(packages) < 50 {
			t.Fatalf("go list named %d packages only", len(packages))
		}
		for _, v := range violations(packages) {
			t.Errorf("with tags %q: %s", tags, v)
		}
	}
}

// Files at the wrong place, and lines that admit to be unfinished, creep in one
// at a time.
func TestShape_Files(t *testing.T) {
	cmd := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-z", "--recurse-submodules")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files (the test reads the tracked files of a clone): %v", err)
	}
	names := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if !slices.Contains(names, "go.mod") {
		t.Fatalf("git ls-files does not name go.mod: %q", names)
	}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(name)))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range fileViolations(name, text) {
			t.Error(v)
		}
	}
}
