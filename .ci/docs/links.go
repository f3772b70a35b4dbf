package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

var (
	// link is [text](target), with the target in angle brackets or not; images are
	// links too.
	link = regexp.MustCompile(`\[[^\]\n]*\]\(<?([^)>\s]+)>?(?:\s+"[^"]*")?\)`)
	// reference is the definition of a link that is named elsewhere.
	reference = regexp.MustCompile(`(?m)^ {0,3}\[[^\]]+\]:\s+<?(\S+?)>?\s*$`)
	heading   = regexp.MustCompile(`(?m)^#{1,6}[ \t]+(.+?)[ \t]*#*$`)
	anchor    = regexp.MustCompile(`<a (?:id|name)="([^"]+)"`)
	// fence and span are code, in which nothing is a link.
	fence = regexp.MustCompile("(?ms)^```.*?^```[ \t]*$")
	span  = regexp.MustCompile("`[^`\n]*`")
	// remote is what cannot be looked at from here.
	remote = regexp.MustCompile(`^(?:https?|mailto):`)
)

// checkLinks returns what is wrong with the links of Markdown files, and how many
// links there are. read reads a file.
func checkLinks(files []string, read func(string) ([]byte, error)) (broken []string, links int) {
	anchors := map[string]map[string]bool{}
	for _, file := range files {
		text, err := read(file)
		if err != nil {
			broken = append(broken, fmt.Sprintf("%s: %v", file, err))
			continue
		}
		for _, target := range targets(text) {
			links++
			if remote.MatchString(target) {
				continue
			}
			where, name, _ := strings.Cut(target, "#")
			where = relative(file, where)
			if _, err := os.Stat(where); err != nil {
				broken = append(broken, fmt.Sprintf("%s: %s: no such file", file, target))
				continue
			}
			if name == "" {
				continue
			}
			if anchors[where] == nil {
				anchors[where] = anchorsIn(where, read)
			}
			if !anchors[where][name] {
				broken = append(broken, fmt.Sprintf("%s: %s: no such heading; there are %s", file, target, strings.Join(sorted(anchors[where]), " ")))
			}
		}
	}
	return broken, links
}

// targets are where the links of a text lead to.
func targets(text []byte) (all []string) {
	text = span.ReplaceAll(fence.ReplaceAll(text, nil), nil)
	for _, pattern := range []*regexp.Regexp{link, reference} {
		for _, m := range pattern.FindAllSubmatch(text, -1) {
			all = append(all, string(m[1]))
		}
	}
	return all
}

// anchorsIn are the names that can stand behind # in a link to a file: its
// headings as GitHub names them.
func anchorsIn(file string, read func(string) ([]byte, error)) map[string]bool {
	names := map[string]bool{}
	text, err := read(file)
	if err != nil {
		return names
	}
	for _, m := range anchor.FindAllSubmatch(text, -1) {
		names[string(m[1])] = true
	}
	for _, m := range heading.FindAllSubmatch(fence.ReplaceAll(text, nil), -1) {
		name := slug(string(m[1]))
		unique := name
		for n := 1; names[unique]; n++ {
			unique = fmt.Sprintf("%s-%d", name, n)
		}
		names[unique] = true
	}
	return names
}

var notInSlug = regexp.MustCompile(`[^\p{L}\p{N}\- _]`)

// slug is how GitHub names a heading.
func slug(title string) string {
	title = link.ReplaceAllStringFunc(title, func(l string) string { return l[1:strings.Index(l, "]")] })
	return strings.ReplaceAll(notInSlug.ReplaceAllString(strings.ToLower(title), ""), " ", "-")
}
