package systemd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// levelMax is the exposure that `systemd-analyze security` may give the units;
// 10 is a service without any restriction.
const levelMax = 0.5

func analyze(t *testing.T, args ...string) string {
	t.Helper()
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not on this machine")
	}
	out, err := exec.Command(tool, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestUnits_Verify: a line that systemd does not know, or a unit that names
// another there is not.
func TestUnits_Verify(t *testing.T) {
	dir := t.TempDir()
	names, err := filepath.Glob("*.s*")
	if err != nil {
		t.Fatal(err)
	}
	units := []string{"verify", "--man=no"}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// The program need not be installed where the test runs.
		text = []byte(strings.ReplaceAll(string(text), "/usr/local/bin/rskvd", "/bin/sh"))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(name, "@") {
			units = append(units, filepath.Join(dir, name))
		}
	}
	if len(units) != 5 {
		t.Fatalf("units: %q", units)
	}
	out := analyze(t, append(units, filepath.Join(dir, "rskvd@x.service"))...)
	for line := range strings.Lines(out) {
		if strings.Contains(line, "rskvd") {
			t.Error(line)
		}
	}
}

// TestUnits_Security: a restriction that was lost.
func TestUnits_Security(t *testing.T) {
	for _, unit := range []string{"rskvd.service", "rskvd@.service"} {
		out := analyze(t, "security", "--offline=true", unit)
		found := regexp.MustCompile(`exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(out)
		if found == nil {
			t.Fatalf("no level in:\n%s", out)
		}
		level, err := strconv.ParseFloat(found[1], 64)
		if err != nil || level > levelMax {
			t.Errorf("%s: exposure %v, at most %v\n%s", unit, found[1], levelMax, out)
		}
	}
}

// TestUnits_Same: an instance that runs otherwise than the service.
func TestUnits_Same(t *testing.T) {
	for _, pair := range [][2]string{{"rskvd.service", "rskvd@.service"}, {"rskvd.socket", "rskvd@.socket"}, {"rskvd-admin.socket", "rskvd-admin@.socket"}} {
		plain, err := os.ReadFile(pair[0])
		if err != nil {
			t.Fatal(err)
		}
		instance, err := os.ReadFile(pair[1])
		if err != nil {
			t.Fatal(err)
		}
		text := strings.NewReplacer("@%i.", ".", "rskv/%i.toml", "rskv/rskvd.toml", "rskv/%i.sock", "rskv/rskv.sock", "rskvd-%i", "rskvd", "rskv-%i", "rskv", " %i", "").Replace(string(instance))
		if text != string(plain) {
			t.Errorf("%s is not %s with an instance's names:\n%s", pair[1], pair[0], text)
		}
	}
}
