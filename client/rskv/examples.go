package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// examples are shown by --help and in the manual pages, a line each; the test
// runs them. The name is that of the command without rskv.
var examples = map[string]string{
	"":            "rskv                                   # a shell: history, Tab, help\nrskv --stat --json                     # for a program that watches\nseq 1000 | sed 's/.*/put n& &/' | rskv --pipe",
	"get":         "rskv get greeting\nrskv get --json greeting",
	"put":         "rskv put greeting \"hello, world\"\ndate | rskv put now\nrskv put --ttl 30m session/ada online\nrskv put --if absent --sync owner me",
	"del":         "rskv del greeting now",
	"exists":      "rskv exists greeting && echo there",
	"cas":         "rskv cas greeting \"hello, world\" hello\nrskv cas --absent --sync lock me         # take a lock\nrskv cas --delete lock me                # and give it back",
	"add":         "rskv add visits\nrskv add stock -5\nrskv add --ttl 1m requests/ada",
	"append":      "date | rskv append journal",
	"expire":      "rskv expire session/ada 1h30m\nrskv expire session/ada never",
	"ttl":         "rskv ttl session/ada",
	"mget":        "rskv mget greeting visits",
	"mput":        "rskv mput color blue size 7",
	"scan":        "rskv scan --prefix session/\nrskv scan --keys --json\nrskv scan --from event/09 --to event/12 --reverse --limit 10   # with the setting ordered",
	"watch":       "rskv watch --prefix session/ --json\nrskv watch --from begin                  # all that the log still has, and what comes",
	"len":         "rskv len --exact",
	"sync":        "rskv sync",
	"import":      "rskv import --prefix src/ --verify engine\nrskv import --sync all.ndjson\nrskv import --prefix cache: redis://127.0.0.1:6379/0",
	"export":      "rskv export all.ndjson\nrskv export --prefix src/ --format tree /tmp/src\nrskv scan --keys --prefix src/ | rskv export --keys-from - some.tsv",
	"verify":      "rskv verify --prefix src/ engine",
	"ping":        "rskv ping",
	"health":      "rskv health || echo \"exit code $?\"",
	"stats":       "rskv stats | grep engine_keys\nrskv stats --json",
	"top":         "rskv top",
	"monitor":     "rskv monitor\nrskv monitor --every 100                 # where it would cost too much",
	"slowlog":     "rskv config set slowlog_threshold 10ms   # it is off at first\nrskv slowlog --count 10",
	"tasks":       "rskv tasks\nrskv tasks run checkpoint",
	"config":      "rskv config\nrskv config memory=64MiB log_level=debug",
	"config get":  "rskv config get memory commit_interval",
	"config set":  "rskv config set log_level debug",
	"backup":      "rskv backup monday.bak\nrskv backup - | gzip >monday.bak.gz",
	"checkpoint":  "rskv checkpoint --cookie nightly",
	"checkpoints": "rskv checkpoints",
	"compact":     "rskv compact",
	"scrub":       "rskv scrub --rate 64MiB\nrskv scrub --status",
	"version":     "rskv version",
}

// addExamples gives commands their examples.
func addExamples(root *cobra.Command) {
	for name, text := range examples {
		cmd, _, err := root.Find(strings.Fields(name))
		if err != nil {
			panic("rskv: examples of " + name + ": " + err.Error())
		}
		cmd.Example = "  " + strings.ReplaceAll(text, "\n", "\n  ")
	}
}
