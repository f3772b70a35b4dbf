package daemon

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var updateOperations = flag.Bool("operations.update", false, "write the tables of OPERATIONS.md")

// generated finds a part of OPERATIONS.md that comes from the code.
var generated = regexp.MustCompile(`(?s)(<!-- generated: ([a-z]+) -->\n).*?(<!-- end -->)`)

// TestOperations_Current: a table in OPERATIONS.md that says something else than
// the code. `make docs` brings it up to date.
func TestOperations_Current(t *testing.T) {
	old, err := os.ReadFile("OPERATIONS.md")
	require.NoError(t, err)
	tables := map[string]string{"settings": settingsTable(), "presets": presetsTable(), "metrics": metricsTable(), "errors": errorsTable(), "log": logTable(t)}
	seen := 0
	text := generated.ReplaceAllStringFunc(string(old), func(part string) string {
		m := generated.FindStringSubmatch(part)
		require.Contains(t, tables, m[2])
		seen++
		return m[1] + tables[m[2]] + m[3]
	})
	require.Equal(t, len(tables), seen, "a table is not in OPERATIONS.md")
	if *updateOperations {
		require.NoError(t, os.WriteFile("OPERATIONS.md", []byte(text), 0o644))
		return
	}
	require.Equal(t, text, string(old), "run make docs")
}

// table writes rows for Markdown; the first is the head.
func table(rows ...[]string) string {
	var b strings.Builder
	for i, row := range rows {
		for j := range row {
			row[j] = strings.ReplaceAll(row[j], "|", `\|`)
		}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(row)) + "|\n")
		}
	}
	return b.String()
}

func settingsTable() string {
	// What depends on the machine is said in words.
	elsewhere := map[string]string{"dir": "see below", "socket": "see below", "memory": "`25%`"}
	defaults := Defaults()
	rows := [][]string{{"setting", "default", "range", "live", "meaning"}}
	for _, s := range settings {
		v := s.bind(&defaults)
		standard := "`" + v.String() + "`"
		if v.String() == "" {
			standard = "none"
		}
		if text, ok := elsewhere[s.name]; ok {
			standard = text
		}
		live := ""
		if s.live {
			live = "yes"
		}
		rows = append(rows, []string{"`" + s.name + "`", standard, valueRange(v), live, s.doc})
	}
	return table(rows...)
}

// valueRange says what a setting may be.
func valueRange(v value) string {
	between := func(low, high string) string { return low + " to " + high }
	switch v := v.(type) {
	case sizeValue[int]:
		return between(formatSize(v.min), formatSize(v.max))
	case sizeValue[int64]:
		return between(formatSize(v.min), formatSize(v.max))
	case ratioValue:
		return "0 to 1"
	case countValue:
		if v.max > 1<<40 {
			return fmt.Sprintf("from %d", v.min)
		}
		return between(fmt.Sprint(v.min), fmt.Sprint(v.max))
	case spanValue:
		return between(short(v.min), short(v.max)) + ", 0"
	case switchValue:
		return "on, off"
	case choiceValue:
		return strings.Join(v.words, ", ")
	case levelValue:
		return strings.Join(levelNames, ", ")
	}
	return v.Type()
}

func short(d time.Duration) string {
	return regexp.MustCompile(`(\D)0m?0?s$`).ReplaceAllString(strings.TrimSuffix(d.String(), "0m0s"), "$1")
}

func presetsTable() string {
	rows := [][]string{{"preset", "for", "sets"}}
	for _, p := range presets {
		var sets []string
		for _, v := range p.values {
			sets = append(sets, "`"+v[0]+"` "+v[1])
		}
		rows = append(rows, []string{"`" + p.name + "`", p.doc, strings.Join(sets, ", ")})
	}
	return table(rows...)
}

func metricsTable() string {
	rows := [][]string{{"metric", "type", "labels", "meaning"}}
	for _, m := range MetricDocs() {
		rows = append(rows, []string{"`" + m.Name + "`", m.Kind, m.Labels, m.Help})
	}
	return table(rows...)
}
