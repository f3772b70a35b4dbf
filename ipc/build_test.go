package ipc

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestBuild: a program that says it is another, or nothing about how it was made.
func TestBuild(t *testing.T) {
	info := &debug.BuildInfo{Settings: []debug.BuildSetting{
		{Key: "-tags", Value: "giouring"}, {Key: "CGO_ENABLED", Value: "0"}, {Key: "GOOS", Value: "linux"},
		{Key: "vcs.revision", Value: "0123456789abcdef0123"}, {Key: "vcs.modified", Value: "true"},
	}}
	info.Main.Version = "(devel)"
	var b Build
	b.read(info)
	require.Equal(t, Build{Commit: "0123456789ab-dirty", Settings: "-tags=giouring CGO_ENABLED=0"}, b)
	b.Version = "devel"
	require.Equal(t, "0123456789ab-dirty", b.Short())
	b = Build{Version: "1.2.3", Commit: "fedcba987654"}
	b.read(info)
	require.Equal(t, "fedcba987654", b.Commit, "what the linker was told counts")
	require.Equal(t, "1.2.3", b.Short())
	require.Equal(t, "devel", Build{Version: "devel", Commit: "unknown"}.Short())

	own := ReadBuild()
	require.NotEmpty(t, own.Version)
	require.NotEmpty(t, own.Commit)
	require.Contains(t, own.String(), own.Go)
}
