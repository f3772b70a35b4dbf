// Command docs writes the API reference of the packages that programs import, as
// Markdown, and checks that every link of the repository's documents leads
// somewhere: to a file, and where it names one, to a heading in it.
//
//	go run ./.ci/docs -o bin/docs
package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/build"
	"go/doc"
	"go/doc/comment"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// packages are those with an interface for others, in the order of the index.
var packages = []string{"client", "client/rskvtest", "ipc", "engine", "ioring", "ioring/iotest", "daemon", "daemon/admin"}

func main() {
	out := flag.String("o", "bin/docs", "directory for the reference")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		os.Exit(1)
	}
}

func run(out string) error {
	if err := writeReference(out); err != nil {
		return err
	}
	list, err := exec.Command("git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard", "*.md").Output()
	if err != nil {
		return fmt.Errorf("list documents: %w", err)
	}
	files := strings.Fields(string(list))
	made, err := filepath.Glob(filepath.Join(out, "*.md"))
	if err != nil {
		return err
	}
	broken, links := checkLinks(append(files, made...), os.ReadFile)
	for _, b := range broken {
		fmt.Fprintln(os.Stderr, b)
	}
	fmt.Printf("%d packages in %s; %d documents, %d links, %d broken\n", len(made)-1, out, len(files), links, len(broken))
	if len(broken) > 0 {
		return fmt.Errorf("%d links lead nowhere", len(broken))
	}
	return nil
}

// writeReference writes a page for each package, and README.md, which lists them.
func writeReference(out string) error {
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	index := "# API reference\n\n| package | what it is |\n|---|---|\n"
	for _, dir := range packages {
		p, fset, err := load(dir)
		if err != nil {
			return fmt.Errorf("package %s: %w", dir, err)
		}
		name := strings.ReplaceAll(dir, "/", "-") + ".md"
		index += fmt.Sprintf("| [%s](%s) | %s |\n", p.ImportPath, name, p.Synopsis(p.Doc))
		if err := os.WriteFile(filepath.Join(out, name), page(p, fset), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(out, "README.md"), []byte(index), 0o644)
}

// load parses a package as the product builds it.
func load(dir string) (*doc.Package, *token.FileSet, error) {
	context := build.Default
	context.GOOS, context.GOARCH, context.BuildTags = "linux", "amd64", []string{"giouring"}
	found, err := context.ImportDir(dir, 0)
	if err != nil {
		return nil, nil, err
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range found.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, f)
	}
	p, err := doc.NewFromFiles(fset, files, "rskv/"+dir)
	return p, fset, err
}

// page is the reference of one package.
func page(p *doc.Package, fset *token.FileSet) []byte {
	w := &writer{p: p, fset: fset}
	fmt.Fprintf(w, "# package %s\n\n    import %q\n\n", p.Name, p.ImportPath)
	w.text(p.Doc)
	w.values("Constants", p.Consts)
	w.values("Variables", p.Vars)
	for _, f := range p.Funcs {
		w.function("## ", f)
	}
	for _, t := range p.Types {
		w.heading("## ", "type "+t.Name, t.Decl.Pos())
		w.code(t.Decl)
		w.text(t.Doc)
		w.values("", append(t.Consts, t.Vars...))
		for _, f := range append(t.Funcs, t.Methods...) {
			w.function("### ", f)
		}
	}
	return w.Bytes()
}

type writer struct {
	bytes.Buffer
	p    *doc.Package
	fset *token.FileSet
}

func (w *writer) heading(level, title string, at token.Pos) {
	where := w.fset.Position(at)
	fmt.Fprintf(w, "%s%s\n\n%s:%d\n\n", level, title, filepath.ToSlash(where.Filename), where.Line)
}

func (w *writer) function(level string, f *doc.Func) {
	name := "func " + f.Name
	if f.Recv != "" {
		name = "func (" + f.Recv + ") " + f.Name
	}
	w.heading(level, name, f.Decl.Pos())
	f.Decl.Body = nil
	w.code(f.Decl)
	w.text(f.Doc)
}

func (w *writer) values(title string, list []*doc.Value) {
	if len(list) > 0 && title != "" {
		fmt.Fprintf(w, "## %s\n\n", title)
	}
	for _, v := range list {
		w.code(v.Decl)
		w.text(v.Doc)
	}
}

// text writes a doc comment. What it calls a heading is one below the page's own.
func (w *writer) text(text string) {
	printer := w.p.Printer()
	printer.HeadingLevel = 4
	printer.HeadingID = func(*comment.Heading) string { return "" } // Markdown makes its own
	w.Write(printer.Markdown(w.p.Parser().Parse(text)))
	w.WriteByte('\n')
}

func (w *writer) code(decl ast.Decl) {
	w.WriteString("```go\n")
	if err := format.Node(w, w.fset, decl); err != nil {
		panic(fmt.Sprintf("docs: print a declaration that was parsed: %v", err))
	}
	w.WriteString("\n```\n\n")
}

// relative is a link's target seen from the file that has it.
func relative(file, target string) string {
	return path.Clean(path.Join(path.Dir(filepath.ToSlash(file)), cmp.Or(target, path.Base(file))))
}

func sorted(set map[string]bool) []string {
	var all []string
	for name := range set {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}
