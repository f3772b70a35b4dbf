package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// pair is one key with its value, and the time from which on it is gone, zero if
// there is none. Whoever received it owns both.
type pair struct {
	key, value []byte
	expires    time.Time
}

// left is how long a pair with an expiry has; ok is false for one without.
func (p *pair) left() (d time.Duration, ok bool) {
	if p.expires.IsZero() {
		return 0, false
	}
	return time.Until(p.expires), true
}

// expired reports whether the pair is gone by now.
func (p *pair) expired() bool {
	left, ok := p.left()
	return ok && left <= 0
}

// source hands out pairs one after another. An *itemError concerns one item
// only, and the source goes on; any other error is its last.
type source = iter.Seq2[pair, error]

// itemError says that one item of a source, or one key, could not be handled.
type itemError struct {
	name string // a path, "line 7", or a quoted key
	err  error
}

func (e *itemError) Error() string { return e.name + ": " + e.err.Error() }
func (e *itemError) Unwrap() error { return e.err }

// format is how pairs stand in files.
type format string

const (
	formatTree   format = "tree"   // a directory: relative path -> content
	formatNDJSON format = "ndjson" // one JSON object a line
	formatTSV    format = "tsv"    // key, tab, value, with escapes
)

// formats is what --format accepts, for messages.
const formats = "tree, ndjson or tsv"

func parseFormat(s string) (format, error) {
	switch f := format(s); f {
	case "", formatTree, formatNDJSON, formatTSV:
		return f, nil
	}
	return "", fmt.Errorf("--format is %q, must be %s", s, formats)
}

// formatByName guesses from a file's name; "" where the name says nothing.
func formatByName(name string) format {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".ndjson", ".jsonl", ".json":
		return formatNDJSON
	case ".tsv", ".tab":
		return formatTSV
	}
	return ""
}

// input is an opened source together with what is known about its size.
type input struct {
	format format
	pairs  source
	// total counts the bytes or, for a tree, files the source will hand out;
	// done says how far it is. A nil total means that nobody knows.
	total func() int64
	done  func() int64
	close func() error
}

// openInput opens src, which is a directory, a file, a Redis server or "-" for stdin. Without
// content a tree hands out keys only, and its files are not opened.
func openInput(src string, f format, stdin io.Reader, prefix []byte, content bool) (*input, error) {
	if src == "-" {
		return openLines(stdin, nil, f)
	}
	if isRedis(src) {
		if f != "" {
			return nil, errors.New("--format is about files, not about Redis")
		}
		return openRedis(src, prefix, content)
	}
	info, err := os.Stat(src)
	if err != nil {
		return nil, err
	}
	if f == "" {
		if f = formatByName(src); info.IsDir() {
			f = formatTree
		}
	}
	if info.IsDir() != (f == formatTree) {
		what := "not a directory"
		if info.IsDir() {
			what = "a directory"
		}
		return nil, fmt.Errorf("%s is %s, which does not go with --format %s", src, what, f)
	}
	if f == formatTree {
		t := &tree{root: src, prefix: prefix, content: content}
		return &input{format: f, pairs: t.pairs, total: t.total, done: t.seen.Load, close: func() error { return nil }}, nil
	}
	file, err := os.Open(src)
	if err != nil {
		return nil, err
	}
	in, err := openLines(file, info, f)
	if err != nil {
		file.Close()
		return nil, err
	}
	in.close = file.Close
	return in, nil
}

// openLines opens a stream of NDJSON or TSV. Without a format the first byte
// decides: NDJSON begins with a brace.
func openLines(r io.Reader, info os.FileInfo, f format) (*input, error) {
	if f == formatTree {
		return nil, errors.New("--format tree needs a directory")
	}
	counted := &countingReader{r: r}
	buffered := bufio.NewReaderSize(counted, 1<<20)
	if f == "" {
		head, err := buffered.Peek(512)
		if err != nil && err != io.EOF && len(head) == 0 {
			return nil, err
		}
		f = formatTSV
		if bytes.HasPrefix(bytes.TrimLeft(head, " \t\r\n"), []byte("{")) {
			f = formatNDJSON
		}
	}
	in := &input{format: f, done: counted.count.Load, close: func() error { return nil }}
	if info != nil && info.Mode().IsRegular() {
		in.total = func() int64 { return info.Size() }
	}
	parse := parseTSV
	if f == formatNDJSON {
		parse = parseNDJSON
	}
	in.pairs = linePairs(buffered, parse)
	return in, nil
}

// keysOf hands out the keys of a list, one a line, each taken as it stands or,
// with hex, decoded. Their values are nil.
func keysOf(r io.Reader, hex bool) source {
	return linePairs(bufio.NewReaderSize(r, 1<<16), func(line []byte) (pair, error) {
		if !hex {
			return pair{key: bytes.Clone(line)}, nil
		}
		key, err := decodeKey(string(line), true)
		return pair{key: key}, err
	})
}
