package daemon

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rskv/engine"
	"rskv/ioring"
	"rskv/ipc"
)

// TestWireError: an error of the engine that nobody has thought of reaches
// clients as a bug of the daemon, or as one that means something else to them.
func TestWireError(t *testing.T) {
	const never = ipc.Code("") // what a client's request cannot bring about
	all := map[string]struct {
		err  error
		code ipc.Code
	}{
		"ErrNotFound": {engine.ErrNotFound, never}, // an answer, not an error
		"ErrBadOp":    {engine.ErrBadOp, never},
		"ErrLocked":   {engine.ErrLocked, never}, "ErrMemoryTooSmall": {engine.ErrMemoryTooSmall, never}, "ErrNotAStore": {engine.ErrNotAStore, never},
		"ErrFormat": {engine.ErrFormat, never}, "ErrNotEmpty": {engine.ErrNotEmpty, never}, "ErrBackup": {engine.ErrBackup, never},

		"ErrNotInteger": {engine.ErrNotInteger, ipc.CodeNotInteger}, "ErrOverflow": {engine.ErrOverflow, ipc.CodeOverflow},
		"ErrKeyEmpty": {engine.ErrKeyEmpty, ipc.CodeBadRequest}, "ErrKeyTooLarge": {engine.ErrKeyTooLarge, ipc.CodeKeyTooLarge},
		"ErrValueTooLarge": {engine.ErrValueTooLarge, ipc.CodeValueTooLarge}, "ErrBadTTL": {engine.ErrBadTTL, ipc.CodeBadRequest}, "ErrBadCheckpoint": {engine.ErrBadCheckpoint, ipc.CodeBadRequest}, "ErrBadOptions": {engine.ErrBadOptions, ipc.CodeBadRequest},
		"ErrLedgerUnknown": {engine.ErrLedgerUnknown, ipc.CodeSessionUnknown},
		"ErrBusy":          {engine.ErrBusy, ipc.CodeBusy}, "ErrIndexFull": {engine.ErrIndexFull, ipc.CodeBusy}, "ErrDiskFull": {engine.ErrDiskFull, ipc.CodeDiskFull},
		"ErrNoTask": {engine.ErrNoTask, ipc.CodeBadRequest}, "ErrTaskFixed": {engine.ErrTaskFixed, ipc.CodeBadRequest},
		"ErrCompacting": {engine.ErrCompacting, ipc.CodeBusy}, "ErrCursor": {engine.ErrCursor, ipc.CodeCursorLost},
		"ErrReadOnly": {fmt.Errorf("%w: %w", engine.ErrReadOnly, unix.EIO), ipc.CodeReadOnly}, "ErrClosed": {engine.ErrClosed, ipc.CodeShuttingDown},
		"ErrCorrupt": {&engine.CorruptError{Where: "log"}, ipc.CodeCorrupt}, "ErrIO": {engine.ErrIO, ipc.CodeIO},
	}
	for _, name := range engineErrors(t) {
		require.Contains(t, all, name, "an error of the engine that this test does not know")
	}
	may := map[engine.Class][]ipc.Code{
		engine.ClassUser:        {ipc.CodeBadRequest, ipc.CodeKeyTooLarge, ipc.CodeValueTooLarge, ipc.CodeNotInteger, ipc.CodeOverflow, ipc.CodeSessionUnknown},
		engine.ClassRecoverable: {ipc.CodeBusy, ipc.CodeDiskFull, ipc.CodeCursorLost},
		engine.ClassCorruption:  {ipc.CodeCorrupt},
		engine.ClassFault:       {ipc.CodeReadOnly, ipc.CodeIO, ipc.CodeShuttingDown},
	}
	for name, e := range all {
		got := wireError(fmt.Errorf("step: %w", e.err))
		if e.code == never {
			require.Equal(t, ipc.CodeInternal, got.Code, name)
			continue
		}
		require.Equal(t, e.code, got.Code, name)
		require.Equal(t, "step: "+e.err.Error(), got.Message)
		if name != "ErrClosed" { // to a client, which goes on with another daemon, that can be mended
			require.Equal(t, engine.ClassOf(e.err).String(), got.Code.Category(), name)
		}
		require.Contains(t, may[engine.ClassOf(e.err)], e.code, "%s is of the class %s", name, engine.ClassOf(e.err))
	}
	for err, code := range map[error]ipc.Code{
		ioring.ErrSyncFailed: ipc.CodeReadOnly, unix.ENOSPC: ipc.CodeDiskFull, unix.EIO: ipc.CodeIO,
		errors.New("strange"): ipc.CodeInternal, errStopping: ipc.CodeShuttingDown,
	} {
		require.Equal(t, code, wireError(fmt.Errorf("write: %w", err)).Code, err)
	}
}

// engineErrors are the names of all exported error variables of the engine.
func engineErrors(t *testing.T) (names []string) {
	files, err := filepath.Glob("../engine/*.go")
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
	require.Greater(t, len(names), 15)
	return names
}
