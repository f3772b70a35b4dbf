package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"
)

// decodeKey returns the key an argument stands for: its bytes or, with --hex,
// the bytes its hexadecimal digits name.
func decodeKey(arg string, isHex bool) ([]byte, error) {
	key := []byte(arg)
	if isHex {
		var err error
		if key, err = hex.DecodeString(arg); err != nil {
			return nil, fmt.Errorf("key %q is not hexadecimal", arg)
		}
	}
	if len(key) == 0 {
		return nil, errors.New("the key is empty")
	}
	return key, nil
}

// quoted writes a key or prefix for people.
func quoted(b []byte) string { return strconv.Quote(string(b)) }

// isTerminal reports whether f is a terminal; what is no file is none.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// valueFrom returns the value an argument stands for: what stdin holds if there
// is no argument or it is "-", else its bytes.
func valueFrom(args []string, stdin io.Reader) ([]byte, error) {
	if len(args) > 0 && args[0] != "-" {
		return []byte(args[0]), nil
	}
	value, err := readValue(stdin, 0)
	if err != nil {
		return nil, fmt.Errorf("read the value from stdin: %w", err)
	}
	return value, nil
}

// sizeUnits are the units a number of bytes may be given in.
var sizeUnits = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// parseSize returns the bytes that text, a whole number with or without a unit,
// stands for.
func parseSize(text string) (int64, error) {
	digits, unit := text, int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			digits, unit = rest, u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return 0, fmt.Errorf("%q is not a number of bytes: write 1000, 64MiB, 1GiB", text)
	}
	return n * unit, nil
}
