// Command report reads the output of `go test -json` from standard input,
// prints it as `go test` would, with the full output of failed and skipped
// tests, and fails when a test failed, when no test ran, or when a test was
// skipped that the file given by -skips does not list with a reason.
//
// The skips file has one line a test: the stage it holds for (or *), package and test as
// pkg.TestName (* matches within a name), and the reason, which may not be
// empty. Lines that begin with # are comments.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
)

// event is one line of test2json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
}

// allowed is one line of the skips file.
type allowed struct{ stage, pattern, reason string }

func main() {
	stages := flag.String("stage", "", "what this run is, as in the skips file: names separated by commas")
	skips := flag.String("skips", "", "file that lists the skips that are allowed")
	flag.Parse()
	problems, err := run(os.Stdin, os.Stdout, *stages, *skips)
	if err != nil {
		problems = append(problems, err.Error())
	}
	for _, p := range problems {
		fmt.Fprintln(os.Stderr, "report:", p)
	}
	if len(problems) > 0 {
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer, stages, skips string) ([]string, error) {
	var list []allowed
	if skips != "" {
		text, err := os.ReadFile(skips)
		if err != nil {
			return nil, fmt.Errorf("read skips: %w", err)
		}
		if list, err = parseSkips(string(text)); err != nil {
			return nil, fmt.Errorf("read skips: %w", err)
		}
	}
	return report(in, out, stages, list)
}

func parseSkips(text string) ([]allowed, error) {
	var list []allowed
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.SplitN(strings.Join(strings.Fields(line), " "), " ", 3)
		if len(fields) < 3 {
			return nil, fmt.Errorf("line %d has no reason", i+1)
		}
		if _, err := path.Match(fields[1], ""); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		list = append(list, allowed{fields[0], fields[1], fields[2]})
	}
	return list, nil
}

// reasonFor returns the reason for which test may be skipped in stages, or "".
// Subtests are looked up by their own name, then by their parent's.
func reasonFor(list []allowed, stages, test string) string {
	all := append(strings.Split(stages, ","), "*")
	for name := test; ; {
		for _, a := range list {
			if !slices.Contains(all, a.stage) {
				continue
			}
			// A slash in a name is an ordinary character here.
			if ok, _ := path.Match(flat(a.pattern), flat(name)); ok {
				return a.reason
			}
		}
		cut := strings.LastIndex(name, "/")
		// The import path holds slashes too: stop at the test's own name.
		if cut < 0 || !strings.Contains(name[:cut], ".Test") {
			return ""
		}
		name = name[:cut]
	}
}

func flat(s string) string { return strings.ReplaceAll(s, "/", ":") }

// report relays the events and returns what is wrong with them.
func report(in io.Reader, out io.Writer, stages string, list []allowed) ([]string, error) {
	var problems []string
	output := map[string][]string{} // of tests that have not ended yet
	passed, skipped := 0, 0
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil {
				fmt.Fprint(out, line)
				continue
			}
			name := e.Package + "." + e.Test
			switch {
			case e.Action == "output" && e.Test != "":
				if !strings.HasPrefix(e.Output, "=== ") {
					output[name] = append(output[name], e.Output)
				}
			case e.Action == "output" || e.Action == "build-output":
				if e.Output != "PASS\n" {
					fmt.Fprint(out, e.Output)
				}
			case e.Action == "build-fail":
				problems = append(problems, "build failed")
			case e.Action == "fail" && e.Test == "":
				problems = append(problems, e.Package+" failed")
				// A test that never ended (panic, time limit) has the reason.
				for test, text := range output {
					if strings.HasPrefix(test, e.Package+".") {
						fmt.Fprint(out, strings.Join(text, ""))
						delete(output, test)
					}
				}
			case e.Action == "fail" || e.Action == "skip" && e.Test != "":
				fmt.Fprint(out, strings.Join(output[name], ""))
				delete(output, name)
				if e.Action == "fail" {
					problems = append(problems, name+" failed")
				} else if skipped++; reasonFor(list, stages, name) == "" {
					problems = append(problems, name+" was skipped, which is not on the list")
				}
			case e.Action == "pass" && e.Test != "":
				passed++
				delete(output, name)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return problems, fmt.Errorf("read events: %w", err)
		}
	}
	fmt.Fprintf(out, "%s: %d tests passed, %d skipped, %d problems\n", stages, passed, skipped, len(problems))
	if passed == 0 && len(problems) == 0 {
		problems = append(problems, "no test ran")
	}
	return problems, nil
}
