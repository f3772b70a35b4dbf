// Package fio runs job files in fio's own format on rskv, and fio beside it.
//
//	job file ──ReadFile──> File ──Jobs──> []Job ──Start──> Bench
//	 [global]               sections,      options that       │ Run, once for each round
//	 [read4k]               as written     are understood     v
//	 rw=randread                                           Output, in fio's JSON
//
//	                      .──────────── one job: one goroutine ───────────.
//	                      |  pick a block -> fill -> Submit  .-> count    |
//	                      '──────────────────────────|───────|────────────'
//	                                                 v       |
//	            backend: device (rskv-uring, rskv-sync), store (rskv-engine),
//	                     socket (rskv-socket)
//
// What is guaranteed:
//   - an option, an engine or a value that is not understood is an error with
//     file and line; nothing is ignored silently;
//   - every read is checked: a block says where it belongs;
//   - the JSON has fio's names and units, so what reads fio's reads it;
//   - figures are counted, never derived from what was asked for.
//
// A fio "file" is a region of the device's address space, or a range of keys:
// block n of file f is the key f<<40|n, its content the value. So a job of
// 4 KiB blocks on rskv-engine is a load of 4 KiB values, and size/bs is the
// number of keys.
//
// file.go is the syntax, units.go numbers with suffixes, options.go what each
// option means, job.go the job; pick.go chooses blocks, run.go is the loop,
// stat.go counts; device.go, store.go and socket.go are the backends; output.go
// is the JSON, versus.go runs fio.
package fio

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const (
	// includeMax is how deep files may include each other, as in fio.
	includeMax = 16
	// lineMax is the longest line in bytes, as in fio.
	lineMax = 4096
)

// Place says where something stands in a job file.
type Place struct {
	File string
	Line int
}

func (p Place) String() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

// Setting is one line of a section: name=value, or a name alone.
type Setting struct {
	Name, Value string
	// Bare says that there was no "=": true for options that are switches.
	Bare  bool
	Place Place
}

// Section is a [name] and what stands below it.
type Section struct {
	Name     string
	Place    Place
	Settings []Setting
}

// File is a job file as it is written, includes resolved.
type File struct{ Sections []Section }

// ReadFile reads the job file at path and what it includes.
func ReadFile(path string) (*File, error) {
	r := reader{}
	if err := r.file(path, 0); err != nil {
		return nil, err
	}
	return r.result()
}

// Parse reads a job file from text; name stands for it in errors. Included files
// are looked for relative to name's directory.
func Parse(name, text string) (*File, error) {
	r := reader{}
	if err := r.text(name, text, 0); err != nil {
		return nil, err
	}
	return r.result()
}

// reader collects sections over several files.
type reader struct{ sections []Section }

func (r *reader) result() (*File, error) {
	if len(r.sections) == 0 {
		return nil, errors.New("the job file has no section")
	}
	return &File{Sections: r.sections}, nil
}

func (r *reader) file(path string, depth int) error {
	// A pipe or a device named by mistake would be waited for without end.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("read job file: %s is no regular file", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read job file: %w", err)
	}
	return r.text(path, string(b), depth)
}

func (r *reader) text(name, text string, depth int) error {
	scanner := bufio.NewScanner(strings.NewReader(text))
	scanner.Buffer(nil, lineMax)
	at := Place{File: name}
	for scanner.Scan() {
		at.Line++
		line := strings.TrimSpace(withoutComment(scanner.Text()))
		if line == "" {
			continue
		}
		if err := r.line(at, line, depth); err != nil {
			return err
		}
	}
	if err := scanner.Err(); err != nil {
		at.Line++
		return fmt.Errorf("%s: %w", at, err)
	}
	return nil
}

// withoutComment cuts what follows ; or #, wherever it stands, as fio does.
func withoutComment(line string) string {
	if i := strings.IndexAny(line, ";#"); i >= 0 {
		return line[:i]
	}
	return line
}

func (r *reader) line(at Place, line string, depth int) error {
	if rest, ok := strings.CutPrefix(line, "["); ok {
		name, ok := strings.CutSuffix(rest, "]")
		if !ok || name == "" {
			return fmt.Errorf("%s: %q is no section", at, line)
		}
		r.sections = append(r.sections, Section{Name: name, Place: at})
		return nil
	}
	if path, ok := strings.CutPrefix(line, "include "); ok {
		return r.include(at, strings.TrimSpace(path), depth)
	}
	if len(r.sections) == 0 {
		return fmt.Errorf("%s: %q stands before the first section", at, line)
	}
	name, value, valued := strings.Cut(line, "=")
	s := Setting{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value), Bare: !valued, Place: at}
	if s.Name == "" || valued && s.Value == "" {
		return fmt.Errorf("%s: %q is neither name=value nor a switch", at, line)
	}
	var err error
	if s.Value, err = expand(s.Value); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	last := &r.sections[len(r.sections)-1]
	last.Settings = append(last.Settings, s)
	return nil
}

// include reads another file at this place. It is looked for beside the file
// that includes it.
func (r *reader) include(at Place, path string, depth int) error {
	if depth+1 >= includeMax {
		return fmt.Errorf("%s: include: more than %d files deep", at, includeMax)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(at.File), path)
	}
	if err := r.file(path, depth+1); err != nil {
		return fmt.Errorf("%s: include: %w", at, err)
	}
	return nil
}

// expand puts environment variables in the place of ${NAME}.
func expand(value string) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(value, "${")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}")
		set, ok := os.LookupEnv(name)
		if !closed || !ok {
			return "", fmt.Errorf("${%s is not a variable of the environment", rest)
		}
		out.WriteString(set)
		value = after
	}
}
