package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A script that runs a scrub every night must learn of damage by the exit code,
// and whoever reads its mail where it is.
func TestRskvd_Scrub(t *testing.T) {
	program, work := buildDaemon(t), t.TempDir()
	dir, socket := filepath.Join(work, "data"), filepath.Join(work, "s")
	d := startDaemon(t, program, dir, socket)
	require.Equal(t, result{0, "never: no scrub since the daemon started\n", ""}, rskv(t, socket, "", "scrub", "--status"))
	require.Equal(t, result{1, "", ""}, rskv(t, socket, "", "scrub", "--stop"))
	require.Equal(t, 0, rskv(t, socket, noise(1, 300_000), "put", "--sync", "key").code)
	r := rskv(t, socket, "", "scrub", "--rate", "1GiB")
	require.Equal(t, 0, r.code, r.stderr)
	require.Regexp(t, `^done: \d+ records in (3\d\d,\d{3}) of (3\d\d,\d{3}) bytes, no damage\n$`, r.stdout)

	segments, err := filepath.Glob(filepath.Join(dir, "seg*"))
	require.NoError(t, err)
	require.NotEmpty(t, segments)
	file, err := os.OpenFile(segments[0], os.O_RDWR, 0)
	require.NoError(t, err)
	for _, at := range []int64{50_000, 200_000} {
		var b [1]byte
		_, err = file.ReadAt(b[:], at)
		require.NoError(t, err)
		b[0] ^= 8
		_, err = file.WriteAt(b[:], at)
		require.NoError(t, err)
	}
	require.NoError(t, file.Sync())
	require.NoError(t, file.Close())
	r = rskv(t, socket, "", "scrub", "--rate", "0")
	require.Equal(t, 1, r.code, r.stdout+r.stderr)
	require.Regexp(t, `^(damage: seg\S+: log 0x[0-9a-f]+ to 0x[0-9a-f]+ \(\d+ bytes\): checksum does not hold\n){1,2}done: .* damaged stretches of [\d,]+ bytes\n$`, r.stdout)
	require.Contains(t, rskv(t, socket, "", "scrub", "--status", "--json").stdout, `{"state":"done",`)
	d.stop(t)
}

// A size that is misread is a disk read at a thousandth of its speed.
func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "17": 17, "5B": 5, "3KiB": 3 << 10, "64MiB": 64 << 20, "2GiB": 2 << 30, "1TiB": 1 << 40} {
		n, err := parseSize(text)
		require.NoError(t, err)
		require.Equal(t, want, n, text)
	}
	for _, text := range []string{"", "MiB", "1.5GiB", "-1", "1MB", "9999999TiB"} {
		_, err := parseSize(text)
		require.Error(t, err, text)
	}
}
