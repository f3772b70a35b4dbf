// Command mutants plants faults in the code, one at a time, and runs the tests that
// have to notice. A fault that all of them pass over is a missing test.
//
// The list is in blocks, with an empty line between:
//
//	# what is wrong
//	file path
//	test package regular-expression
//	- a line as it is in the file, any number of them in a row
//	+ what stands there instead; none: the lines are left out
//
// The lines must be in the file once. Nothing is changed on disk: the compiler is
// given the other file by an overlay.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// mutant is one fault.
type mutant struct {
	what, file   string
	pkg, tests   string
	source, with string
}

func main() {
	list := flag.String("list", ".ci/mutants/list", "the faults")
	only := flag.String("only", "", "plant those only whose description has this in it")
	look := flag.Bool("look", false, "see only that each fault has its place in the code, and run nothing")
	limit := flag.Duration("limit", 5*time.Minute, "how long the tests of one fault may take: a hang is noticed, too")
	flag.Parse()
	if err := run(*list, *only, *look, *limit); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(list, only string, look bool, limit time.Duration) error {
	text, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	all, err := parse(string(text))
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	sound := map[string]bool{}
	caught, survived := 0, 0
	for _, m := range all {
		if !strings.Contains(m.what, only) {
			continue
		}
		overlay, err := m.plant(work)
		if err != nil {
			return fmt.Errorf("%s: %w", m.what, err)
		}
		if look {
			continue
		}
		if key := m.pkg + " " + m.tests; !sound[key] {
			if out, ok := test(m, "", limit); !ok {
				return fmt.Errorf("the tests of %q fail without it:\n%s", m.what, out)
			}
			sound[key] = true
		}
		began := time.Now()
		out, passed := test(m, overlay, limit)
		switch {
		case strings.Contains(out, "[build failed]") || strings.Contains(out, "[setup failed]"):
			return fmt.Errorf("%s: it does not compile:\n%s", m.what, out)
		case passed:
			survived++
			fmt.Printf("SURVIVED  %-62s %s %s\n", m.what, m.pkg, m.tests)
		default:
			caught++
			fmt.Printf("caught    %-62s by %s in %.0f s\n", m.what, failing(out, m), time.Since(began).Seconds())
		}
	}
	if look {
		return nil
	}
	fmt.Printf("%d mutants: %d caught, %d survived\n", caught+survived, caught, survived)
	if survived > 0 || caught == 0 {
		return fmt.Errorf("%d faults that no test notices", survived)
	}
	return nil
}

// parse reads the list.
func parse(text string) (all []mutant, err error) {
	for block := range strings.SplitSeq(text, "\n\n") {
		var m mutant
		for line := range strings.Lines(block) {
			line = strings.TrimSuffix(line, "\n")
			word, rest, _ := strings.Cut(line, " ")
			switch word {
			case "#":
				m.what = rest
			case "file":
				m.file = rest
			case "test":
				m.pkg, m.tests, _ = strings.Cut(rest, " ")
			case "-":
				m.source += rest + "\n"
			case "+":
				m.with += rest + "\n"
			case "":
			default:
				return nil, fmt.Errorf("line %q begins with none of # file test - +", line)
			}
		}
		switch {
		case m == mutant{}:
			continue
		case m.what == "" || m.file == "" || m.tests == "" || m.source == "":
			return nil, fmt.Errorf("not a whole block: %q", block)
		}
		all = append(all, m)
	}
	return all, nil
}

// plant writes the file with the fault, and the overlay that has it compiled.
func (m *mutant) plant(work string) (overlay string, err error) {
	text, err := os.ReadFile(m.file)
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(text), m.source); n != 1 {
		return "", fmt.Errorf("%s has the lines %d times:\n%s", m.file, n, m.source)
	}
	faulty := filepath.Join(work, filepath.Base(m.file))
	if err := os.WriteFile(faulty, []byte(strings.Replace(string(text), m.source, m.with, 1)), 0o600); err != nil {
		return "", err
	}
	whole, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(map[string]map[string]string{"Replace": {whole: faulty}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(work, "overlay.json")
	return overlay, os.WriteFile(overlay, b, 0o600)
}

// test runs the tests of a fault, with it or without.
func test(m mutant, overlay string, limit time.Duration) (out string, passed bool) {
	args := []string{"test", "-short", "-count=1", "-timeout", limit.String(), "-run", m.tests}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit+time.Minute)
	defer cancel()
	b, err := exec.CommandContext(ctx, "go", append(args, m.pkg)...).CombinedOutput()
	if err == nil && strings.Contains(string(b), "no tests to run") {
		return "no test is called " + m.tests, false
	}
	return string(b), err == nil
}

// failing names the test that failed first.
func failing(out string, m mutant) string {
	for line := range strings.Lines(out) {
		if name, found := strings.CutPrefix(line, "--- FAIL: "); found {
			name, _, _ = strings.Cut(name, " ")
			return name
		}
	}
	return "the end of the process, or of its time (" + m.tests + ")"
}
