//go:build !linux

package daemon

import "errors"

// Confine takes nothing from the process on other systems than Linux, and says
// so. With sandbox=on that is an error.
func Confine(cfg Config, _ Manager) (string, error) {
	if cfg.Sandbox == sandboxOn {
		return "", errors.New("sandbox: there is none on this system")
	}
	return "none on this system", nil
}
