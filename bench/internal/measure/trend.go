package measure

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// Entry is one line of a trend file: what a commit that claims speed measured.
type Entry struct {
	Date    time.Time  `json:"date"`
	Commit  string     `json:"commit"`
	Claim   string     `json:"claim"` // in one sentence
	Machine Machine    `json:"machine"`
	Rows    []TrendRow `json:"rows"`
}

// TrendRow is a row's figures, no more.
type TrendRow struct {
	Group string    `json:"group"`
	Name  string    `json:"name"`
	Unit  string    `json:"unit"`
	Rates []float64 `json:"rates"`
}

// Report is the entry as a report, to be compared.
func (e *Entry) Report() *Report {
	r := &Report{Date: e.Date, Commit: e.Commit, Machine: e.Machine}
	for _, row := range e.Rows {
		r.Rows = append(r.Rows, &Row{Group: row.Group, Name: row.Name, Unit: row.Unit, Rates: row.Rates})
	}
	return r
}

// NewEntry makes a line of a report's rows that have figures.
func NewEntry(r *Report, claim string) (*Entry, error) {
	e := &Entry{Date: r.Date, Commit: r.Commit, Claim: claim, Machine: r.Machine}
	for _, row := range r.Rows {
		if len(row.Rates) > 0 {
			e.Rows = append(e.Rows, TrendRow{row.Group, row.Name, row.Unit, row.Rates})
		}
	}
	switch {
	case len(e.Rows) == 0:
		return nil, errors.New("the report has no figures")
	case claim == "":
		return nil, errors.New("a line of the trend says what it claims")
	case e.Commit == "":
		return nil, errors.New("the report does not know its commit: build the program in its repository")
	}
	return e, nil
}

// lineMax bounds a line of a trend file in bytes.
const lineMax = 4 << 20

// ReadTrend reads a trend file, oldest line first. A missing file has no lines.
func ReadTrend(path string) ([]*Entry, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read trend: %w", err)
	}
	var list []*Entry
	scanner := bufio.NewScanner(bytes.NewReader(b))
	scanner.Buffer(nil, lineMax)
	for n := 1; scanner.Scan(); n++ {
		if len(bytes.TrimSpace(scanner.Bytes())) == 0 {
			continue
		}
		var e Entry
		if err := json.Unmarshal(scanner.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("read trend: %s:%d: %w", path, n, err)
		}
		list = append(list, &e)
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read trend: %w", err)
	}
	return list, nil
}

// AppendTrend adds a line to a trend file.
func AppendTrend(path string, e *Entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write trend: %w", err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write trend: %w", err)
	}
	_, err = f.Write(append(line, '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write trend: %w", err)
	}
	return nil
}

// ReadReport reads what WriteJSON wrote.
func ReadReport(r io.Reader) (*Report, error) {
	var report Report
	if err := json.NewDecoder(r).Decode(&report); err != nil {
		return nil, fmt.Errorf("read report: %w", err)
	}
	return &report, nil
}
