package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"rskv/client"
)

// bigShown is how many keys, and how many groups of keys, --bigkeys lists.
const bigShown = 10

// groupsMax bounds the groups that are counted apart: keys without a common
// beginning must not fill the memory.
const groupsMax = 100_000

// sizes is what a store holds, by size.
type sizes struct {
	keys, bytes int64
	largest     []sized           // by size, largest first; at most bigShown
	groups      map[string]*group // by what stands before the first / or :
	classes     [65]int64         // values of so many bits of length
}

// sized is a key and the length of its value.
type sized struct {
	key   []byte
	bytes int64
}

// group is the keys with one beginning.
type group struct {
	name        string
	keys, bytes int64
}

// otherGroup has the keys beyond groupsMax groups.
const otherGroup = "(others)"

func (s *sizes) add(p client.Pair) {
	n := int64(len(p.Value))
	s.keys++
	s.bytes += int64(len(p.Key)) + n
	s.classes[bits.Len64(uint64(n))]++
	s.addGroup(p.Key, int64(len(p.Key))+n)
	if len(s.largest) == bigShown && n <= s.largest[bigShown-1].bytes {
		return
	}
	at, _ := slices.BinarySearchFunc(s.largest, n, func(e sized, n int64) int { return cmp.Compare(n, e.bytes) })
	s.largest = slices.Insert(s.largest, at, sized{bytes.Clone(p.Key), n})
	s.largest = s.largest[:min(len(s.largest), bigShown)]
}

func (s *sizes) addGroup(key []byte, n int64) {
	name := "(no / or :)"
	if i := bytes.IndexAny(key, "/:"); i >= 0 {
		name = string(key[:i+1])
	}
	g := s.groups[name]
	if g == nil && len(s.groups) >= groupsMax {
		name = otherGroup
		g = s.groups[name]
	}
	if g == nil {
		g = &group{name: name}
		s.groups[name] = g
	}
	g.keys++
	g.bytes += n
}

// bigGroups are the groups with the most bytes.
func (s *sizes) bigGroups() []*group {
	all := make([]*group, 0, len(s.groups))
	for _, g := range s.groups {
		all = append(all, g)
	}
	slices.SortFunc(all, func(a, b *group) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), strings.Compare(a.name, b.name))
	})
	return all[:min(len(all), bigShown)]
}

// bigkeys reads the whole store and prints what is large in it.
func (t *tool) bigkeys(cmd *cobra.Command) error {
	s := &sizes{groups: map[string]*group{}}
	var total int64
	err := t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
		total, err = c.Len(ctx)
		return err
	})
	if err != nil {
		return err
	}
	var seen steps
	var read atomic.Int64
	var bar *progress
	if isTerminal(t.stderr) {
		bar = startProgress(t.stderr, func(took time.Duration) string {
			return share(seen.done.Load(), seen.total.Load()) + fmt.Sprintf("%s keys  %s", grouped(seen.done.Load()), rate(read.Load(), took))
		})
	}
	err = t.scanPages(cmd, client.ScanOptions{Count: scanKeys}, func(pairs []client.Pair) error {
		for _, p := range pairs {
			s.add(p)
		}
		seen.set(s.keys, total)
		read.Store(s.bytes)
		return nil
	})
	bar.end()
	if err != nil {
		return err
	}
	return t.printSizes(s)
}

func (t *tool) printSizes(s *sizes) error {
	if t.json {
		return t.answer("", field{"keys", s.keys}, field{"bytes", s.bytes}, field{"largest", jsonLargest(s.largest)},
			field{"groups", jsonGroups(s.bigGroups())}, field{"values_below", jsonClasses(&s.classes)})
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s keys, %s bytes of keys and values\n", grouped(s.keys), grouped(s.bytes))
	if s.keys > 0 {
		fmt.Fprintf(&out, "\n%14s  largest values\n", "bytes")
		for _, e := range s.largest {
			fmt.Fprintf(&out, "%14s  %s\n", grouped(e.bytes), quoted(e.key))
		}
		fmt.Fprintf(&out, "\n%14s %12s  keys by their beginning\n", "bytes", "keys")
		for _, g := range s.bigGroups() {
			fmt.Fprintf(&out, "%14s %12s  %s\n", grouped(g.bytes), grouped(g.keys), quotedGroup(g.name))
		}
		fmt.Fprintf(&out, "\n%14s  values of less than\n", "keys")
		for i, n := range s.classes {
			if n > 0 {
				fmt.Fprintf(&out, "%14s  %-18s %s\n", grouped(n), grouped(int64(1)<<i)+" bytes", strings.Repeat("#", max(1, int(n*barWidth/s.keys))))
			}
		}
	}
	_, err := fmt.Fprint(t.stdout, out.String())
	return err
}

// quotedGroup quotes what is part of keys.
func quotedGroup(name string) string {
	if strings.HasPrefix(name, "(") {
		return name
	}
	return quoted([]byte(name))
}

func jsonLargest(list []sized) []map[string]any {
	all := make([]map[string]any, len(list))
	for i, e := range list {
		all[i] = map[string]any{"bytes": e.bytes}
		if plain, encoded := jsonBytes(e.key); plain != nil {
			all[i]["key"] = plain
		} else {
			all[i]["key_base64"] = encoded
		}
	}
	return all
}

func jsonGroups(list []*group) []map[string]any {
	all := make([]map[string]any, len(list))
	for i, g := range list {
		all[i] = map[string]any{"begins": strings.ToValidUTF8(g.name, "\ufffd"), "keys": g.keys, "bytes": g.bytes}
	}
	return all
}

func jsonClasses(classes *[65]int64) map[string]int64 {
	all := map[string]int64{}
	for i, n := range classes {
		if n > 0 {
			all[fmt.Sprint(int64(1)<<i)] = n
		}
	}
	return all
}
