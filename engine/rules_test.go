package engine

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// testNames has the tests of the store, and of what is built on it.
func testNames(t *testing.T) map[string]bool {
	there := map[string]bool{}
	for _, root := range []string{".", "../ioring", "../daemon", "../client"} {
		require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			for _, d := range file.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
					there[fn.Name.Name] = true
				}
			}
			return nil
		}))
	}
	return there
}

// rulesTable returns the lines of a table of RULES.md that has so many columns.
func rulesTable(t *testing.T, columns int) (rows [][]string) {
	text, err := os.ReadFile("RULES.md")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) == columns+2 && !strings.HasPrefix(cells[1], "---") {
			rows = append(rows, cells[1:columns+1])
		}
	}
	return rows[1:]
}

var testName = regexp.MustCompile("`(Test[A-Za-z_]+)`")

// TestRules: a rule that data depends on has lost its test, or RULES.md names one
// that is gone.
func TestRules(t *testing.T) {
	there, rules := testNames(t), rulesTable(t, 3)
	for _, cells := range rules {
		names := testName.FindAllStringSubmatch(cells[2], -1)
		require.NotEmpty(t, names, "rule %s has no test", cells[0])
		for _, name := range names {
			require.True(t, there[name[1]], "rule %s: there is no %s", cells[0], name[1])
		}
	}
	require.GreaterOrEqual(t, len(rules), 18)
}

// TestRules_Elsewhere: what others' users have suffered is neither tested here nor
// impossible.
func TestRules_Elsewhere(t *testing.T) {
	there, rows := testNames(t), rulesTable(t, 4)
	for i, cells := range rows {
		require.Equal(t, strconv.Itoa(i+1), strings.TrimSpace(cells[0]))
		names := testName.FindAllStringSubmatch(cells[3], -1)
		require.True(t, len(names) > 0 || strings.HasPrefix(strings.TrimSpace(cells[2]), "It cannot happen: "), "row %s has no test", cells[0])
		for _, name := range names {
			require.True(t, there[name[1]], "row %s: there is no %s", cells[0], name[1])
		}
	}
	require.Len(t, rows, 22)
}

// TestBudget_LargeValues: large values that are read at a time take more memory
// than their budget.
func TestBudget_LargeValues(t *testing.T) {
	s, _ := openCold(t, func(o *Options) { o.MaxValue = 2 << 20 }) // a budget of 4 MiB
	const keys = 12
	n := s.NewSession()
	ops := make([]Op, keys)
	for i := range ops {
		require.NoError(t, n.Put(key64(i), valueOf(uint64(i), 0, 2<<20)))
		ops[i] = Op{Tag: uint64(i), Kind: OpGet, Key: key64(i)}
	}
	evict(t, s, n)
	n.Start(ops)
	most, answers := int64(0), 0
	for n.Pending() > 0 {
		n.Complete(func(op *Op) {
			require.NoError(t, op.Err)
			answers++
		})
		most = max(most, s.largeInUse())
		require.LessOrEqual(t, most, s.large.limit)
		if n.Pending() > 0 {
			<-n.Ready()
		}
	}
	require.Positive(t, most)
	require.Equal(t, keys, answers)
	n.Close()
	require.NoError(t, s.Close())
}
