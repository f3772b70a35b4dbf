package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// sink takes the pairs of an export. An *itemError from write concerns that
// pair only; any other error ends the export.
type sink interface {
	write(p pair) error
	close() error
}

// openOutput opens dst, which is a directory to create or fill, a file to write
// anew, a Redis server, or "-" for stdout. Keys go into a directory or a server
// without prefix.
func openOutput(dst string, f format, stdout io.Writer, prefix []byte) (sink, error) {
	if isRedis(dst) {
		if f != "" {
			return nil, errors.New("--format is about files, not about Redis")
		}
		return newRedisSink(dst, prefix)
	}
	if f == "" && dst != "-" {
		f = formatByName(dst)
	}
	if f == "" {
		if f = formatTree; dst == "-" {
			f = formatTSV
		}
	}
	if f == formatTree {
		if dst == "-" {
			return nil, errors.New("--format tree needs a directory")
		}
		return newTreeSink(dst, prefix)
	}
	if dst == "-" {
		return &lineSink{w: bufio.NewWriterSize(stdout, 1<<20), format: f}, nil
	}
	file, err := os.Create(dst)
	if err != nil {
		return nil, err
	}
	return &lineSink{w: bufio.NewWriterSize(file, 1<<20), file: file, format: f}, nil
}

// lineSink writes NDJSON or TSV.
type lineSink struct {
	w      *bufio.Writer
	file   *os.File // nil for stdout
	format format
	line   []byte // reused
}

func (s *lineSink) write(p pair) error {
	var err error
	if s.format == formatNDJSON {
		s.line, err = appendNDJSON(s.line[:0], p)
	} else {
		s.line = appendTSV(s.line[:0], p.key, p.value)
	}
	if err != nil {
		return err
	}
	_, err = s.w.Write(s.line)
	return err
}

func (s *lineSink) close() error {
	err := s.w.Flush()
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
	}
	return err
}

// keepsExpiry reports whether what is written to a sink says when it is gone.
func keepsExpiry(out sink) bool {
	switch s := out.(type) {
	case *lineSink:
		return s.format == formatNDJSON
	case *redisSink:
		return true
	}
	return false
}

// treeSink writes each pair into a file of its own. Whatever the keys say, and
// whatever links stand in the directory, it does not write outside of it.
type treeSink struct {
	root   *os.Root
	prefix []byte
	made   map[string]bool // directories known to exist
}

// errNotPath: the key does not name exactly one file below a directory.
var errNotPath = errors.New("is not a relative path, so it cannot be a file name")

func newTreeSink(dir string, prefix []byte) (*treeSink, error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &treeSink{root: root, prefix: prefix, made: map[string]bool{".": true}}, nil
}

func (s *treeSink) write(p pair) error {
	key, value := p.key, p.value
	rest, ok := bytes.CutPrefix(key, s.prefix)
	if !ok {
		return &itemError{quoted(key), fmt.Errorf("does not begin with the prefix %s", quoted(s.prefix))}
	}
	name := string(rest)
	// A name that Clean would change is another key's file too, or a directory.
	if path.Clean(name) != name || name == "." || strings.ContainsRune(name, 0) || !filepath.IsLocal(filepath.FromSlash(name)) {
		return &itemError{quoted(key), errNotPath}
	}
	file := filepath.FromSlash(name)
	if dir := filepath.Dir(file); !s.made[dir] {
		if err := s.root.MkdirAll(dir, 0o777); err != nil {
			return s.classify(key, err)
		}
		s.made[dir] = true
	}
	return s.classify(key, s.root.WriteFile(file, value, 0o666))
}

// classify tells a name that cannot be (a file where a directory is needed, too
// long a name) from a disk that cannot go on.
func (s *treeSink) classify(key []byte, err error) error {
	if err == nil || isFull(err) {
		return err
	}
	return &itemError{quoted(key), plain(err)}
}

func (s *treeSink) close() error { return s.root.Close() }
