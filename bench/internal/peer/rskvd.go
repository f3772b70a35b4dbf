package peer

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// RSKVD starts the daemon in a directory of its own below dir. memory is its
// budget in bytes; commit is the commit interval, 0 for only when asked; flags are
// more of its flags.
func RSKVD(ctx context.Context, program, dir string, memory int64, commit time.Duration, flags ...string) (*Server, error) {
	if program == "" {
		var err error
		if program, err = Beside("rskvd"); err != nil {
			return nil, err
		}
	}
	own, err := makeDir(dir, "rskvd")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(own, "sock")
	flags = append([]string{"--dir", filepath.Join(own, "data"), "--socket", socket,
		"--memory", fmt.Sprint(memory), "--commit-interval", commit.String()}, flags...)
	return start(ctx, "rskvd", socket, program, flags...)
}

// Beside finds a program that was built together with this one: next to it,
// else where programs are looked for.
func Beside(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		path := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside this program nor in PATH (make build makes it, --rskvd names it)", name)
	}
	return path, nil
}
