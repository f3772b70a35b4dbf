//go:build linux

// Package faultfs is a file system that fails on demand, for tests: what a
// program does to the files below Dir is done to a directory below it, unless a
// rule says that it goes wrong.
//
//	program under test        pread, pwrite, io_uring, fdatasync, fallocate
//	        |
//	   kernel (FUSE)          no page cache for data: one request, one Op
//	        |
//	   rules: EIO, ENOSPC, short, late
//	        |
//	   directory below        Below: what a healthy disk would find
//
// It differs from iotest.Fault in that the errors come from a real kernel, so
// that everything between a system call and the program's caller is under test:
// the ring as well as the pool, files, names and metadata.
//
// Requests longer than transferMax bytes arrive in parts. Errors of fsync are
// told once for each request; nothing is held back or dropped, so what was
// written is in the directory below whether or not it was synced.
package faultfs

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"rskv/ioring/iotest/mounts"
)

// Kind is what a program wants done to a file.
type Kind uint8

// The requests that rules can see. Everything else always goes through.
const (
	Read Kind = iota + 1
	Write
	Fsync    // fsync or fdatasync, of a directory too
	Allocate // fallocate
	kinds
)

// Op is one request as rules see it.
type Op struct {
	Kind Kind
	Name string // of the file in Dir; empty for Dir itself
	Off  int64  // in bytes
	Size int    // in bytes
	// WriteOnly: the file was opened for writing only.
	WriteOnly bool
}

// Rule makes requests go wrong. The first rule that matches a request applies.
type Rule struct {
	// Kind of the requests; zero means all.
	Kind Kind
	// Match chooses among them; nil takes all.
	Match func(Op) bool
	// From is the first request of those that it applies to, counted from 1;
	// zero means 1.
	From int
	// Count is how many it applies to; zero means all that follow.
	Count int

	// Err is the answer, without any effect. Zero: the request succeeds.
	Err syscall.Errno
	// Short moves the first half of the bytes only, and says so.
	Short bool
	// Delay is waited first.
	Delay time.Duration
}

const (
	// fsName is how a mount is found again that a killed run has left; the number
	// of its process follows.
	fsName = "rskv-faultfs-"
	// transferMax is the longest read or write in bytes that arrives as one
	// request: two of the largest pages that tests write at once.
	transferMax = 512 << 10
)

// FS is a mounted file system.
type FS struct {
	// Dir is where programs see it, Below the directory that holds the files.
	// Immutable.
	Dir, Below string

	server  *fuse.Server
	watcher *exec.Cmd
	mu      struct {
		sync.Mutex
		rules []*activeRule
		count [kinds]int
		hits  []Op // that rules with an Err, or Short, applied to
	}
}

// activeRule is a rule in force, and how many requests it has seen.
type activeRule struct {
	Rule
	seen int
}

// Mount makes an empty file system, with two directories under parent: Dir and
// Below. Unmount ends it. The error says why this machine has none; mounts that
// killed runs have left are removed first.
func Mount(parent string) (*FS, error) {
	mounts.RemoveStale(unix.MNT_FORCE|unix.MNT_DETACH, owner)
	f := &FS{Dir: parent + "/mnt", Below: parent + "/below"}
	for _, dir := range []string{f.Dir, f.Below} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	file, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	file.Close()
	root := &fs.LoopbackRoot{Path: f.Below}
	top := &node{&fs.LoopbackNode{RootData: root}, f}
	root.RootNode = top
	second := time.Second // names change through this mount only
	if f.watcher, err = watch(f.Dir); err != nil {
		return nil, err
	}
	f.server, err = fs.Mount(f.Dir, top, &fs.Options{
		EntryTimeout: &second, AttrTimeout: &second,
		MountOptions: fuse.MountOptions{
			DirectMount: true, MaxWrite: transferMax, DisableXAttrs: true, Name: "rskv-faultfs", FsName: fsName + strconv.Itoa(os.Getpid()),
		},
	})
	if err != nil {
		f.unwatch()
		return nil, fmt.Errorf("mount FUSE: %w", err)
	}
	return f, nil
}

// watch starts a process that ends the mount at dir when this one dies. A process
// with requests to itself in flight cannot die otherwise, for it waits for its own
// answers; its command line is gone by then.
func watch(dir string) (*exec.Cmd, error) {
	const script = `while [ -n "$(tr -d '\0' 2>/dev/null </proc/$1/cmdline)" ]; do sleep 0.3; done; umount -f -l "$2"`
	cmd := exec.Command("/bin/sh", "-c", script, "faultfs", strconv.Itoa(os.Getpid()), dir)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("watch the mount: %w", err)
	}
	return cmd, nil
}

func (f *FS) unwatch() {
	_ = f.watcher.Process.Kill()
	_ = f.watcher.Wait()
}

// Unmount ends the file system. What still uses it gets errors from then on.
func (f *FS) Unmount() error {
	defer f.unwatch()
	// Forced, or a file that a failed test has left open would keep it alive.
	if err := unix.Unmount(f.Dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
		// Not root: the helper that has mounted it.
		if err := f.server.Unmount(); err != nil {
			return fmt.Errorf("unmount %s: %w", f.Dir, err)
		}
	}
	f.server.Wait()
	return nil
}

// owner is the process that made a file system of this kind. One that dies with
// requests of its own in flight waits for its own answers, until the mount is forced
// away.
func owner(source string) (pid string, ours bool) { return strings.CutPrefix(source, fsName) }

// Inject adds a rule behind the others and returns what takes it away again.
func (f *FS) Inject(rule Rule) (remove func()) {
	r := &activeRule{Rule: rule}
	r.From = max(r.From, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.rules = append(f.mu.rules, r)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for i := range f.mu.rules {
			if f.mu.rules[i] == r {
				f.mu.rules = append(f.mu.rules[:i:i], f.mu.rules[i+1:]...)
				return
			}
		}
	}
}

// Count is how many requests of a kind there were.
func (f *FS) Count(kind Kind) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.count[kind]
}

// Hits lists the requests that went wrong, oldest first.
func (f *FS) Hits() []Op {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Op(nil), f.mu.hits...)
}

// Reset forgets all rules, counts and hits, for the next round of a test.
func (f *FS) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.rules, f.mu.hits, f.mu.count = nil, nil, [kinds]int{}
}

// judge counts a request and says what becomes of it.
func (f *FS) judge(op Op) (errno syscall.Errno, short bool) {
	rule := f.match(op)
	time.Sleep(rule.Delay)
	return rule.Err, rule.Short
}

// match finds the first rule for op; all rules count it.
func (f *FS) match(op Op) (found Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.count[op.Kind]++
	applied := false
	for _, r := range f.mu.rules {
		if r.Kind != 0 && r.Kind != op.Kind || r.Match != nil && !r.Match(op) {
			continue
		}
		r.seen++
		if !applied && r.seen >= r.From && (r.Count == 0 || r.seen < r.From+r.Count) {
			found, applied = r.Rule, true
		}
	}
	if found.Err != 0 || found.Short {
		f.mu.hits = append(f.mu.hits, op)
	}
	return found
}
