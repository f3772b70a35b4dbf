package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLinks: a link that leads nowhere and is passed over, or one that leads
// somewhere and is not found.
func TestLinks(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range map[string]string{
		"README.md": "# A title, with `code` & more\n[a](sub/b.md) [c](<sub/b.md> \"title\") ![p](p.png) [s](#a-title-with-code--more)\n" +
			"[r]\n\n[r]: sub/b.md#two-1\n[web](https://example.org/x) `[no](link)`\n```\n[no](link)\n# no heading\n```\n",
		"sub/b.md": "## Two\n## Two\n[up](../README.md) [bad](gone.md) [worse](../README.md#no-heading) <a id=\"here\"></a> [h](#here)\n[dir](..)\n",
		"p.png":    "",
	} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	broken, links := checkLinks([]string{"README.md", "sub/b.md", "none.md"}, os.ReadFile)
	if links != 11 {
		t.Errorf("%d links", links)
	}
	if len(broken) != 3 || !strings.Contains(broken[0], "sub/b.md: gone.md: no such file") ||
		!strings.Contains(broken[1], "../README.md#no-heading: no such heading") || !strings.Contains(broken[2], "none.md") {
		t.Errorf("%q", broken)
	}
}

// TestReference: a package without a page, a page that leaves something out.
func TestReference(t *testing.T) {
	t.Chdir("../..")
	out := t.TempDir()
	if err := writeReference(out); err != nil {
		t.Fatal(err)
	}
	for _, dir := range packages {
		text, err := os.ReadFile(filepath.Join(out, strings.ReplaceAll(dir, "/", "-")+".md"))
		if err != nil {
			t.Fatal(err)
		}
		if len(text) < 1000 || !strings.HasPrefix(string(text), "# package ") {
			t.Errorf("%s: %d bytes", dir, len(text))
		}
	}
	text, err := os.ReadFile(filepath.Join(out, "client.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"func Dial", "func (*Client) Get", "ErrNotFound", "type Client"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page of the client does not have %s", want)
		}
	}
}
