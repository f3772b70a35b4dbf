package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

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
