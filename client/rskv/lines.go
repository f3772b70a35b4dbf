package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"rskv/ipc"
)

// lineMax is the longest line read: the longest key and value with every byte
// escaped as JSON's \u0000, and room for the field names. It bounds the memory
// a file without line ends can cost.
const lineMax = 6*(ipc.MaxKey+ipc.MaxValue) + 1024

// countingReader counts what was read. count is read by the progress line.
type countingReader struct {
	r     io.Reader
	count atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.count.Add(int64(n))
	return n, err
}

// readLine returns the next line without its newline. The slice is valid until
// the next call. A line above limit bytes is an error that ends the stream.
func readLine(r *bufio.Reader, scratch []byte, limit int) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		scratch = append(scratch[:0], line...)
		for err == bufio.ErrBufferFull {
			if len(scratch) > limit {
				return nil, fmt.Errorf("line is longer than %d bytes", limit)
			}
			line, err = r.ReadSlice('\n')
			scratch = append(scratch, line...)
		}
		line = scratch
	}
	if n := len(line); n > 0 && line[n-1] == '\n' {
		return line[:n-1], nil
	}
	if err == io.EOF && len(line) > 0 {
		return line, nil // the last line may lack its newline
	}
	return nil, err
}

// linePairs hands out what parse makes of each line; empty lines are skipped. A
// line that does not parse is an *itemError that names its number.
func linePairs(r *bufio.Reader, parse func(line []byte) (pair, error)) source {
	return func(yield func(pair, error) bool) {
		var scratch []byte
		for number := 1; ; number++ {
			line, err := readLine(r, scratch, lineMax)
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(pair{}, fmt.Errorf("line %d: %w", number, err))
				return
			}
			if cap(line) > cap(scratch) && len(line) > r.Size() {
				scratch = line
			}
			if len(line) == 0 {
				continue
			}
			p, err := parse(line)
			if err != nil {
				err = &itemError{"line " + strconv.Itoa(number), err}
			}
			if !yield(p, err) {
				return
			}
		}
	}
}

// expiryFormat is RFC 3339 to the millisecond.
const expiryFormat = "2006-01-02T15:04:05.000Z07:00"

// jsonPair is one line of NDJSON. Bytes that are not UTF-8 go into the _base64
// variant of their field (RFC 4648, padded).
type jsonPair struct {
	Key         *string `json:"key,omitempty"`
	KeyBase64   *string `json:"key_base64,omitempty"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 *string `json:"value_base64,omitempty"`
	Expires     *string `json:"expires,omitempty"` // RFC 3339
}

// appendNDJSON appends the line of one pair, newline included.
func appendNDJSON(dst []byte, p pair) ([]byte, error) {
	var line jsonPair
	line.Key, line.KeyBase64 = jsonBytes(p.key)
	line.Value, line.ValueBase64 = jsonBytes(p.value)
	if !p.expires.IsZero() {
		at := p.expires.UTC().Format(expiryFormat)
		line.Expires = &at
	}
	out := bytes.NewBuffer(dst)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(line)
	return out.Bytes(), err
}

// jsonBytes returns b for the plain field, or for the _base64 one.
func jsonBytes(b []byte) (plain, encoded *string) {
	var s string
	if utf8.Valid(b) {
		s = string(b)
		return &s, nil
	}
	s = base64.StdEncoding.EncodeToString(b)
	return nil, &s
}

func parseNDJSON(line []byte) (pair, error) {
	// The decoder would replace both by U+FFFD: other bytes than were meant.
	if !utf8.Valid(line) {
		return pair{}, errors.New("not UTF-8 (use key_base64, value_base64)")
	}
	if loneSurrogate(line) {
		return pair{}, errors.New(`half of a surrogate pair (\ud800 to \udfff) stands for no character`)
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	var read jsonPair
	if err := dec.Decode(&read); err != nil {
		return pair{}, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return pair{}, errors.New("more than one JSON value")
	}
	var p pair
	var err error
	if p.key, err = fromJSON("key", read.Key, read.KeyBase64); err != nil {
		return pair{}, err
	}
	if p.value, err = fromJSON("value", read.Value, read.ValueBase64); err != nil {
		return pair{}, err
	}
	if read.Expires != nil {
		p.expires, err = parseExpiry(*read.Expires)
	}
	return p, err
}

// parseExpiry returns a time that appendNDJSON can write, to the millisecond.
func parseExpiry(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	at = at.UTC().Truncate(time.Millisecond)
	if err != nil || at.Year() < 1970 || at.Year() > 9999 {
		return time.Time{}, fmt.Errorf("expires is %q, want a time as 2026-01-31T23:59:59.999Z", text)
	}
	return at, nil
}

func fromJSON(name string, plain, encoded *string) ([]byte, error) {
	switch {
	case plain != nil && encoded != nil:
		return nil, fmt.Errorf("both %s and %s_base64", name, name)
	case plain != nil:
		return []byte(*plain), nil
	case encoded != nil:
		b, err := base64.StdEncoding.DecodeString(*encoded)
		if err != nil {
			return nil, fmt.Errorf("%s_base64: %w", name, err)
		}
		return b, nil
	}
	return nil, fmt.Errorf("no %s", name)
}

// loneSurrogate reports whether a \u escape in line is half a surrogate pair.
func loneSurrogate(line []byte) bool {
	for i := 0; i < len(line); i++ {
		if line[i] != '\\' {
			continue
		}
		i++ // what is escaped
		unit, ok := escapedUnit(line[i:])
		if !ok {
			continue
		}
		i += 4
		switch {
		case unit >= 0xdc00 && unit < 0xe000:
			return true
		case unit >= 0xd800 && unit < 0xdc00:
			if i+2 >= len(line) || line[i+1] != '\\' {
				return true
			}
			if low, ok := escapedUnit(line[i+2:]); !ok || low < 0xdc00 || low >= 0xe000 {
				return true
			}
			i += 6
		}
	}
	return false
}

// escapedUnit decodes uXXXX at the start of b.
func escapedUnit(b []byte) (uint64, bool) {
	if len(b) < 5 || b[0] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(string(b[1:5]), 16, 16)
	return unit, err == nil
}

// appendTSV appends the line of one pair, newline included. Tab, newline,
// carriage return and backslash are written \t \n \r \\; all else as it is.
func appendTSV(dst, key, value []byte) []byte {
	dst = appendEscaped(dst, key)
	dst = append(dst, '\t')
	dst = appendEscaped(dst, value)
	return append(dst, '\n')
}

func appendEscaped(dst, b []byte) []byte {
	for _, c := range b {
		switch c {
		case '\t':
			dst = append(dst, `\t`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\\':
			dst = append(dst, `\\`...)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func parseTSV(line []byte) (pair, error) {
	key, value, ok := bytes.Cut(line, []byte("\t"))
	if !ok {
		return pair{}, errors.New("no tab between key and value")
	}
	if bytes.IndexByte(value, '\t') >= 0 {
		return pair{}, errors.New(`more than one tab (write a tab in a value as \t)`)
	}
	k, err := unescape(key)
	if err != nil {
		return pair{}, err
	}
	v, err := unescape(value)
	return pair{key: k, value: v}, err
}

// unescape undoes appendEscaped; \xHH is understood as well.
func unescape(b []byte) ([]byte, error) {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			out = append(out, b[i])
			continue
		}
		i++
		if i == len(b) {
			return nil, errors.New("ends in the middle of an escape")
		}
		switch b[i] {
		case 't':
			out = append(out, '\t')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case '\\':
			out = append(out, '\\')
		case 'x':
			if i+2 >= len(b) {
				return nil, errors.New("ends in the middle of an escape")
			}
			c, err := strconv.ParseUint(string(b[i+1:i+3]), 16, 8)
			if err != nil {
				return nil, fmt.Errorf(`bad escape \x%s`, b[i+1:i+3])
			}
			out = append(out, byte(c))
			i += 2
		default:
			return nil, fmt.Errorf(`unknown escape \%c`, b[i])
		}
	}
	return out, nil
}
