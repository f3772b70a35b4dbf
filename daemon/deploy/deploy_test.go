package deploy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"rskv/daemon"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return text
}

// documents reads every document of a YAML file.
func documents(t *testing.T, name string) []map[string]any {
	t.Helper()
	var all []map[string]any
	for d := yaml.NewDecoder(bytes.NewReader(read(t, name))); ; {
		var one map[string]any
		if err := d.Decode(&one); errors.Is(err, io.EOF) {
			return all
		} else {
			require.NoError(t, err, name)
		}
		all = append(all, one)
	}
}

// settings checks variables and flags the way the daemon would read them.
func settings(t *testing.T, where string, environ, args []string) daemon.Config {
	t.Helper()
	flags := pflag.NewFlagSet("rskvd", pflag.ContinueOnError)
	daemon.AddFlags(flags)
	require.NoError(t, flags.Parse(args), where)
	cfg, err := daemon.Load(flags, environ)
	require.NoError(t, err, where)
	return cfg
}

// variables finds every RSKV_NAME=value or RSKV_NAME: value.
var variables = regexp.MustCompile(`\b(RSKV_[A-Z_]+)(?:=|: |, value: )"?([^\s"}]+)`)

func environOf(text []byte) []string {
	var environ []string
	for _, m := range variables.FindAllSubmatch(text, -1) {
		environ = append(environ, string(m[1])+"="+string(m[2]))
	}
	return environ
}

// TestContainerfile: an image with a setting that the daemon refuses, or that
// starts something it does not hold.
func TestContainerfile(t *testing.T) {
	text := read(t, "Containerfile")
	environ := environOf(text)
	require.Len(t, environ, 3)
	cfg := settings(t, "Containerfile", environ, nil)
	require.Equal(t, "/run/rskv/rskv.sock", cfg.Socket)
	for _, line := range []string{`ENTRYPOINT ["/rskvd"]`, "USER 65532:65532", "FROM scratch", "COPY --from=build /src/bin/rskvd /src/bin/rskv /\n"} {
		require.Contains(t, string(text), line)
	}
	require.FileExists(t, "../../go.mod")
}

// TestKubernetes: a sidecar that starts after the program, or whose probes ask
// for what there is not.
func TestKubernetes(t *testing.T) {
	all := documents(t, "kubernetes.yaml")
	require.Len(t, all, 2)
	spec := all[1]["spec"].(map[string]any)
	sidecar := spec["initContainers"].([]any)[0].(map[string]any)
	require.Equal(t, "Always", sidecar["restartPolicy"])
	var args []string
	for _, a := range sidecar["args"].([]any) {
		args = append(args, a.(string))
	}
	var environ []string
	for _, e := range sidecar["env"].([]any) {
		e := e.(map[string]any)
		environ = append(environ, e["name"].(string)+"="+e["value"].(string))
	}
	settings(t, "kubernetes.yaml", environ, args)
	for _, probe := range []string{"startupProbe", "livenessProbe"} {
		command := sidecar[probe].(map[string]any)["exec"].(map[string]any)["command"].([]any)
		require.Equal(t, "/rskv", command[0])
		require.FileExists(t, "../../client/rskv/main.go")
		require.Contains(t, toolCommands(t), command[1], "%s asks for a command there is not", probe)
	}
	mounts := map[string]bool{}
	for _, v := range spec["volumes"].([]any) {
		mounts[v.(map[string]any)["name"].(string)] = true
	}
	for _, m := range sidecar["volumeMounts"].([]any) {
		require.True(t, mounts[m.(map[string]any)["name"].(string)], "%v", m)
	}
	profile := sidecar["securityContext"].(map[string]any)["seccompProfile"].(map[string]any)
	require.Equal(t, "seccomp.json", filepath.Base(profile["localhostProfile"].(string)))
}

// toolCommands are the commands of the tool, as its source declares them.
func toolCommands(t *testing.T) []any {
	t.Helper()
	files, err := filepath.Glob("../../client/rskv/*.go")
	require.NoError(t, err)
	var names []any
	for _, f := range files {
		for _, m := range regexp.MustCompile(`Use:\s+"([a-z]+)`).FindAllSubmatch(read(t, f), -1) {
			names = append(names, string(m[1]))
		}
	}
	require.NotEmpty(t, names)
	return names
}

// TestCompose: a service with a setting that the daemon refuses, or without the
// profile it names.
func TestCompose(t *testing.T) {
	services := documents(t, "compose.yaml")[0]["services"].(map[string]any)
	rskv := services["rskv"].(map[string]any)
	var environ []string
	for name, v := range rskv["environment"].(map[string]any) {
		environ = append(environ, name+"="+v.(string))
	}
	settings(t, "compose.yaml", environ, nil)
	build := rskv["build"].(map[string]any)
	require.FileExists(t, filepath.Join(build["context"].(string), build["dockerfile"].(string)))
	require.Contains(t, rskv["security_opt"], "seccomp=./seccomp.json")
}

// TestPackages: a file that the packages leave out, or a script that is no shell.
func TestPackages(t *testing.T) {
	text := strings.NewReplacer("${ARCH}", "amd64", "${VERSION}", "1").Replace(string(read(t, "nfpm.yaml")))
	var p struct {
		Contents []struct{ Src, Dst string }
		Scripts  map[string]string
	}
	require.NoError(t, yaml.Unmarshal([]byte(text), &p))
	for _, c := range p.Contents {
		if !strings.HasPrefix(c.Src, "bin/") { // made by make package
			require.FileExists(t, filepath.Join("../..", c.Src))
		}
	}
	require.Len(t, p.Scripts, 3)
	for _, script := range p.Scripts {
		info, err := os.Stat(filepath.Join("../..", script))
		require.NoError(t, err)
		require.EqualValues(t, 0o111, info.Mode().Perm()&0o111, "%s is not executable", script)
	}
}

// TestGrafana: a panel of a metric that the daemon does not have.
func TestGrafana(t *testing.T) {
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(read(t, "grafana.json"), &board))
	require.Greater(t, len(board.Panels), 10)
	known := map[string]string{}
	for _, m := range daemon.MetricDocs() {
		known[m.Name] = m.Labels
	}
	name := regexp.MustCompile(`\b(rskv|process|go)_[a-z_]+`)
	by := regexp.MustCompile(`\bby \(([^)]*)\)`)
	for _, p := range board.Panels {
		require.NotEmpty(t, p.Targets, p.Title)
		for _, target := range p.Targets {
			names := name.FindAllString(target.Expr, -1)
			require.NotEmpty(t, names, "%s: %s", p.Title, target.Expr)
			for _, n := range names {
				n = strings.TrimSuffix(n, "_bucket")
				require.Contains(t, known, n, p.Title)
				for _, m := range by.FindAllStringSubmatch(target.Expr, -1) {
					for label := range strings.SplitSeq(m[1], ", ") {
						have := strings.Split(known[n], ", ")
						require.True(t, label == "le" || slices.Contains(have, label), "%s: %s has no label %s", p.Title, n, label)
					}
				}
			}
		}
	}
}
