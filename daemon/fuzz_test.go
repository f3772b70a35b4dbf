package daemon

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzSettings: the text of a file with settings makes Load panic; or an error does
// not say in which line of the file it is, or is not one line; or what was accepted
// contradicts itself, or is something else when it is written and read again.
func FuzzSettings(f *testing.F) {
	f.Add("")
	f.Add("memory = \"64MiB\"\nmax_connections = 5\nlog_level = 'warn'\n")
	f.Add("roles = [\"*=read\", \"root=admin\"]\nmore_sockets = \"/m mode=0600 roles=*=read; /n\"\n")
	f.Add("live_ratio = nan\n[daemon]\nio = 1979-05-27\n\"a.b\" = {x = [1]}\n")
	f.Add("preset = \"low-memory\"\ncommit_interval = \"1h1m\"\nsocket_mode = '0o777'\n")
	f.Add("memory = 9223372036854775807\nmax_key = -1\nordered = 1e999\n")
	path := filepath.Join(f.TempDir(), "settings.toml")
	f.Fuzz(func(t *testing.T, text string) {
		cfg, err := loadText(t, path, text)
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				name, _, _ := strings.Cut(line, ":")
				_, known := settingByName(name)
				require.True(t, known || strings.HasPrefix(line, path+":"), "%q", line)
				require.NotContains(t, line, "\x1b")
			}
			return
		}
		require.NoError(t, cfg.Validate())
		var dump bytes.Buffer
		require.NoError(t, cfg.WriteTOML(&dump))
		again, err := loadText(t, path, dump.String())
		require.NoError(t, err, dump.String())
		cfg.origin, again.origin = nil, nil
		require.Equal(t, cfg, again)
	})
}

// loadText loads settings from the text of a file alone.
func loadText(t *testing.T, path, text string) (Config, error) {
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return Load(nil, []string{"RSKV_CONFIG=" + path})
}
