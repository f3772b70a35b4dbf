package deploy

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// allowed are the modules that programs and tests may be built from, with the
// licence of each and what it is for.
var allowed = map[string]string{
	"github.com/BurntSushi/toml":                    "MIT: the settings' file",
	"github.com/HdrHistogram/hdrhistogram-go":       "MIT: how long commits hold writes, and the benchmarks",
	"github.com/anishathalye/porcupine":             "MIT: tests of linearizability",
	"github.com/cespare/xxhash/v2":                  "MIT: checksums",
	"github.com/cpuguy83/go-md2man/v2":              "MIT: manual pages, with the tag docs",
	"github.com/hanwen/go-fuse/v2":                  "BSD: a file system that fails, for tests",
	"github.com/inconshreveable/mousetrap":          "Apache: of cobra, on Windows",
	"github.com/landlock-lsm/go-landlock":           "MIT: the daemon's sandbox",
	"github.com/pawelgaczynski/giouring":            "MIT: io_uring",
	"github.com/russross/blackfriday/v2":            "BSD: of go-md2man",
	"github.com/spf13/cobra":                        "Apache: commands",
	"github.com/spf13/pflag":                        "BSD: flags",
	"github.com/stretchr/testify":                   "MIT: tests",
	"github.com/vmihailenco/msgpack/v5":             "BSD: what is not hot on the wire",
	"github.com/vmihailenco/tagparser/v2":           "BSD: of msgpack",
	"go.uber.org/goleak":                            "MIT: tests that leave nothing behind",
	"go.yaml.in/yaml/v3":                            "MIT: tests of manifests",
	"golang.org/x/sys":                              "BSD: system calls",
	"golang.org/x/term":                             "BSD: terminals",
	"kernel.org/pub/linux/libs/security/libcap/psx": "BSD: system calls on every thread, of go-landlock",
	"github.com/davecgh/go-spew":                    "ISC: of testify",
	"github.com/pmezard/go-difflib":                 "BSD: of testify",
	"github.com/stretchr/objx":                      "MIT: of testify",
}

// licences tells the ones that are allowed by their first words.
var licences = map[string]*regexp.Regexp{
	"MIT":    regexp.MustCompile(`(?i)MIT License|Permission is hereby granted, free of charge`),
	"BSD":    regexp.MustCompile(`Redistribution and use in source and binary forms`),
	"Apache": regexp.MustCompile(`Apache License\s+Version 2\.0`),
	"ISC":    regexp.MustCompile(`Permission to use, copy, modify, and/?(or)? distribute this software`),
}

// TestAudit_Modules: a module that came in without a decision, or under a
// licence that nobody has read.
func TestAudit_Modules(t *testing.T) {
	cmd := exec.Command("go", "list", "-test", "-deps", "-tags", "giouring docs", "-json=Module", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	require.NoError(t, err)
	seen := map[string]bool{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			Module *struct {
				Path, Dir string
				Main      bool
			}
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		if p.Module == nil || p.Module.Main || seen[p.Module.Path] {
			continue
		}
		seen[p.Module.Path] = true
		reason, ok := allowed[p.Module.Path]
		if !ok {
			t.Errorf("%s is not among the modules that are allowed", p.Module.Path)
			continue
		}
		kind, _, _ := strings.Cut(reason, ":")
		if !licensed(p.Module.Dir, licences[kind]) {
			t.Errorf("%s has no licence that reads like %s", p.Module.Path, kind)
		}
	}
	require.Greater(t, len(seen), 10)
}

func licensed(dir string, words *regexp.Regexp) bool {
	files, _ := filepath.Glob(filepath.Join(dir, "[Ll][Ii][Cc][Ee][Nn]*"))
	copying, _ := filepath.Glob(filepath.Join(dir, "COPYING*"))
	for _, f := range append(files, copying...) {
		if text, err := os.ReadFile(f); err == nil && words.Match(text) {
			return true
		}
	}
	return false
}

// unsafeReasons are the files, tests aside, that may import unsafe, and why each
// use is sound as a whole; the places say it for themselves.
var unsafeReasons = map[string]string{
	"daemon/peer_linux.go":                      "where the kernel puts the groups of a peer, for the length of the call",
	"engine/internal/epoch/epoch.go":            "the size of a slot, at compile time",
	"engine/internal/hlog/alloc.go":             "addresses in frames the log owns; an allocation never leaves its page",
	"engine/internal/hlog/flush.go":             "a frozen page as bytes for the device; nobody writes it any more",
	"engine/internal/hlog/frame.go":             "frames cut out of one mapping that lives as long as the log",
	"engine/internal/hlog/image.go":             "a page of the log copied out, within the section that keeps its frame; the copy is sealed in its own memory",
	"engine/internal/hlog/log.go":               "an address of the log as memory; the epoch keeps its frame there",
	"engine/internal/hlog/resize.go":            "the frames of a mapping, and which of several a frame lies in",
	"engine/internal/hlog/warm.go":              "a frame that is filled before others can reach it",
	"engine/internal/index/create.go":           "an address as a number, to spread waiters; it is never followed",
	"engine/internal/index/index.go":            "buckets in one mapping, by a masked number",
	"engine/internal/index/pool.go":             "overflow buckets in one mapping, by a number that was handed out",
	"engine/internal/index/prefetch_asm.go":     "hints to the processor, which read nothing",
	"engine/internal/index/prefetch_generic.go": "the same as loads of words within the table",
	"engine/internal/ordered/check.go":          "texts of the tree's nodes, for its self-test",
	"engine/internal/ordered/inner.go":          "entries and texts of a node, within the bounds its head gives",
	"engine/internal/ordered/leaf.go":           "slots and texts of a leaf, within the bounds its head gives",
	"engine/internal/ordered/page.go":           "texts of a leaf, read under its latch",
	"engine/internal/ordered/pool.go":           "nodes and long keys in one mapping, by numbers that the pool handed out",
	"engine/internal/ordered/split.go":          "texts of a leaf, moved to another by the one who holds the lock",
	"engine/internal/ordered/tree.go":           "texts of a node, in it or in the pool, within the bounds its head gives",
	"engine/internal/record/checksum.go":        "the body of a record, within the size its header says",
	"engine/internal/record/copy.go":            "values word by word, which others may be writing; a sequence word tells",
	"engine/internal/record/copy_amd64.go":      "long values, where the processor's order of loads makes the sequence word enough",
	"engine/internal/record/copy_generic.go":    "long values word by word, where it does not",
	"engine/internal/record/hash.go":            "eight bytes of a key that has as many",
	"engine/internal/record/record.go":          "the two words of a record's header, atomically",
	"engine/forward.go":                         "records of a page that is being looked at, within the epoch",
	"engine/internal/cache/cache.go":            "table and ring in a mapping that their owner keeps, within the epoch",
	"engine/allotment.go":                       "room at the log's tail, within the epoch",
	"engine/placement.go":                       "room at the log's tail, within the epoch",
	"engine/internal/timers/timers.go":          "chunks of blocks outside the heap, which their owner keeps",
	"engine/large.go":                           "chunks of a value, copied within the epoch",
	"engine/move.go":                            "a record that was just allocated, before others can reach it",
	"engine/modify.go":                          "the same, where the present value is read",
	"engine/ops.go":                             "records where index and log say they are, within the epoch",
	"engine/pipeline.go":                        "values of a group, copied within the epoch",
	"engine/readcache.go":                       "copies of records, within the epoch, that count only if they are whole",
	"engine/scanreader.go":                      "log in memory, copied within the epoch",
	"engine/suspects.go":                        "a list outside the heap, in a mapping that its owner keeps",
	"engine/warm.go":                            "records of a frame before others can reach it",
	"ioring/buffer.go":                          "which staging buffer a slice is of",
	"ioring/check.go":                           "whether a slice is aligned; the address is never followed",
	"ioring/iotest/contract.go":                 "a slice that is not aligned, for a test",
	"ioring/memory.go":                          "the beginning of a mapping, and whether a slice is part of it",
	"ioring/memory_heap.go":                     "an aligned part of a slice, in builds with the race detector",
	"ioring/memory_mmap.go":                     "an aligned part of a mapping, for huge pages",
	"ioring/memory_other.go":                    "a mapping in place of another",
	"ioring/ring.go":                            "addresses for the kernel, of memory that is kept until it has answered",
}

// TestAudit_Unsafe: memory that is reached past the type system in a file where
// nobody looks for it.
func TestAudit_Unsafe(t *testing.T) {
	cmd := exec.Command("git", "-c", "safe.directory=*", "grep", "-lE", `^(import )?[[:space:]]*(_ )?"unsafe"$`, "--", "*.go", ":!*_test.go")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	require.NoError(t, err)
	files := strings.Fields(string(out))
	for _, f := range files {
		if unsafeReasons[f] == "" {
			t.Errorf("%s imports unsafe without a reason in this table", f)
		}
	}
	for f := range unsafeReasons {
		require.Contains(t, files, f, "a reason for a file that does not import unsafe any more")
	}
}
