package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// history is the lines of a shell, for the arrow keys and Ctrl-R. It is kept in
// memory only, for lines hold values, unless the environment names a file. A
// line that begins with a blank is not kept, nor is one twice in a row.
type history struct {
	lines []string // oldest first
	file  string   // "" keeps none

	// Of a search: what was looked for, what was found, and where to go on.
	wanted, found string
	from          int
}

const (
	// historyVariable names the file.
	historyVariable = "RSKV_HISTORY"
	// historyLines is how many are kept.
	historyLines = 1000
)

// keepIn reads the lines of a file, and has later ones written to it. Only its
// owner may read it.
func (h *history) keepIn(file string) error {
	if file == "" {
		return nil
	}
	f, err := os.Open(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return fmt.Errorf("history: %w", err)
	default:
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			h.append(lines.Text())
		}
		if err := lines.Err(); err != nil {
			return fmt.Errorf("history: %s: %w", file, err)
		}
	}
	h.file = file
	return nil
}

// append adds a line and reports whether it is worth keeping.
func (h *history) append(line string) bool {
	if strings.TrimSpace(line) == "" || line[0] == ' ' || len(h.lines) > 0 && h.lines[len(h.lines)-1] == line {
		return false
	}
	h.lines = append(h.lines, line)
	h.lines = h.lines[max(0, len(h.lines)-historyLines):]
	return true
}

// Add, Len and At make it a term.History.
func (h *history) Add(line string) {
	if !h.append(line) || h.file == "" {
		return
	}
	f, err := os.OpenFile(h.file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return // the shell goes on without: it was said at the start, or it is for good
	}
	defer f.Close()
	_, _ = f.WriteString(line + "\n")
}

func (h *history) Len() int        { return len(h.lines) }
func (h *history) At(i int) string { return h.lines[len(h.lines)-1-i] }

// search returns the newest line that contains wanted, beginning from lines back,
// with the cursor at its end.
func (h *history) search(wanted string) (line string, pos int, ok bool) {
	for i := h.from; i < len(h.lines); i++ {
		if line := h.At(i); strings.Contains(line, wanted) {
			h.wanted, h.found, h.from = wanted, line, i+1
			return line, len(line), true
		}
	}
	return "", 0, false
}
