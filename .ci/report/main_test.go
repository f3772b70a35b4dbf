package main

import (
	"bytes"
	"strings"
	"testing"
)

// A reporter that lets an unlisted skip, a failure or an empty run pass would
// make every green run worthless.
func TestReport(t *testing.T) {
	list, err := parseSkips("# comment\n\nring rskv/a.TestRing*  needs io_uring\n* rskv/a.TestRoot runs as root\n")
	if err != nil {
		t.Fatal(err)
	}
	pass := `{"Action":"pass","Package":"rskv/a","Test":"TestOK"}` + "\n"
	skip := func(test string) string {
		return `{"Action":"output","Package":"rskv/a","Test":"` + test + `","Output":"why it was skipped\n"}` + "\n" +
			`{"Action":"skip","Package":"rskv/a","Test":"` + test + `"}` + "\n"
	}
	for _, c := range []struct{ name, stage, in, problem, output string }{
		{"all pass", "ring", pass, "", "1 tests passed"},
		{"listed skip", "ring", pass + skip("TestRingSQ"), "", "why it was skipped"},
		{"listed for its parent", "ring", pass + skip("TestRingSQ/deep"), "", "1 skipped"},
		{"listed for one of several", "race,ring", pass + skip("TestRingSQ"), "", "1 skipped"},
		{"listed for another stage", "pool", pass + skip("TestRingSQ"), "TestRingSQ was skipped", ""},
		{"listed for every stage", "pool", pass + skip("TestRoot"), "", ""},
		{"unlisted skip", "ring", pass + skip("TestOther"), "TestOther was skipped", ""},
		{"package without tests", "ring", pass + `{"Action":"skip","Package":"rskv/b"}` + "\n", "", ""},
		{"failure", "ring", `{"Action":"output","Package":"rskv/a","Test":"TestBad","Output":"got 1\n"}` + "\n" +
			`{"Action":"fail","Package":"rskv/a","Test":"TestBad"}` + "\n", "TestBad failed", "got 1"},
		{"panic", "ring", `{"Action":"output","Package":"rskv/a","Test":"TestBad","Output":"panic: x\n"}` + "\n" +
			`{"Action":"fail","Package":"rskv/a"}` + "\n", "rskv/a failed", "panic: x"},
		{"build failure", "ring", `{"Action":"build-output","ImportPath":"rskv/a","Output":"undefined: x\n"}` + "\n" +
			`{"Action":"build-fail","ImportPath":"rskv/a"}` + "\n", "build failed", "undefined: x"},
		{"nothing ran", "ring", "", "no test ran", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			problems, err := report(strings.NewReader(c.in), &out, c.stage, list)
			if err != nil {
				t.Fatal(err)
			}
			all := strings.Join(problems, "\n")
			if (all == "") != (c.problem == "") || !strings.Contains(all, c.problem) {
				t.Errorf("problems %q, want %q", all, c.problem)
			}
			if !strings.Contains(out.String(), c.output) {
				t.Errorf("output %q lacks %q", out.String(), c.output)
			}
		})
	}
	if _, err := parseSkips("ring rskv/a.TestRing\n"); err == nil {
		t.Error("a skip without a reason was accepted")
	}
}
