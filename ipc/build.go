package ipc

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
)

// Set by the linker where the build knows more than the Go tool: `make build`.
var release, commit string

// Build is what the program that runs was built from, and how.
type Build struct {
	Version  string `json:"version"` // of a release; "devel" without one
	Commit   string `json:"commit"`  // "unknown" without one; "-dirty" behind it if there were changes
	Protocol int    `json:"protocol"`
	Go       string `json:"go"`
	Platform string `json:"platform"` // system/architecture
	Settings string `json:"settings"` // build tags and flags that change the program
}

// ReadBuild returns it.
func ReadBuild() Build { return build() }

var build = sync.OnceValue(func() Build {
	b := Build{
		Version: release, Commit: commit, Protocol: ProtocolVersion,
		Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.read(info)
	}
	b.Version, b.Commit = cmp.Or(b.Version, "devel"), cmp.Or(b.Commit, "unknown")
	return b
})

// read takes what the Go tool knows and the linker was not told.
func (b *Build) read(info *debug.BuildInfo) {
	if v := info.Main.Version; v != "(devel)" {
		b.Version = cmp.Or(b.Version, v)
	}
	var settings []string
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value[:min(len(s.Value), 12)]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "-dirty"
			}
		case "-tags", "-race", "-trimpath", "CGO_ENABLED", "GOAMD64", "GOARM64", "GOEXPERIMENT":
			settings = append(settings, s.Key+"="+s.Value)
		}
	}
	if revision != "" {
		b.Commit = cmp.Or(b.Commit, revision+dirty)
	}
	b.Settings = strings.Join(settings, " ")
}

// String says it in a line.
func (b Build) String() string {
	return fmt.Sprintf("%s, commit %s, protocol %d, %s %s, built with %s", b.Version, b.Commit, b.Protocol, b.Go, b.Platform, b.Settings)
}

// Short is the version, or the commit where there is none.
func (b Build) Short() string {
	if b.Version == "devel" && b.Commit != "unknown" {
		return b.Commit
	}
	return b.Version
}
