package engine

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// exportedErrors are the names of all exported error variables of the package.
func exportedErrors(t *testing.T) (names []string) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				for _, name := range s.(*ast.ValueSpec).Names {
					if strings.HasPrefix(name.Name, "Err") {
						names = append(names, name.Name)
					}
				}
			}
		}
	}
	return names
}

// TestClassOf: an error of this package without a class, or with two; or one
// whose class depends on how it is wrapped.
func TestClassOf(t *testing.T) {
	source, err := os.ReadFile("class.go")
	require.NoError(t, err)
	names := exportedErrors(t)
	require.Greater(t, len(names), 15)
	for _, name := range names {
		require.Contains(t, string(source), "\t{"+name+", ", "%s has no class", name)
	}
	seen := map[error]bool{}
	for _, c := range classes {
		require.False(t, seen[c.err], c.err)
		seen[c.err] = true
		for _, err := range []error{c.err, fmt.Errorf("step: %w", c.err), errors.Join(errors.New("other"), c.err)} {
			require.Equal(t, c.class, ClassOf(err), err)
			require.Equal(t, [3]bool{c.class == ClassUser, c.class == ClassRecoverable, c.class == ClassCorruption},
				[3]bool{IsUserError(err), IsRecoverable(err), IsCorruption(err)}, err)
		}
	}
	require.True(t, IsCorruption(&CorruptError{Where: "log", Addr: 4096}))
	require.Equal(t, ClassFault, ClassOf(fmt.Errorf("%w: %w", ErrReadOnly, &CorruptError{})))
	require.False(t, IsUserError(nil) || IsRecoverable(nil) || IsCorruption(nil))
	require.Equal(t, "fault", ClassOf(errors.New("strange")).String())
}
