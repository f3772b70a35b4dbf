// Package kv is what all key-value stores that are measured have in common, so
// that one loop drives every one of them:
//
//	Store   one store, opened: its name, what it has used, its end
//	Worker  one caller's way in; one for each goroutine
//
// A Worker may besides be a Batcher; who is not is asked one key at a time. The
// loops call through an interface once for each operation or batch, some 2 ns.
//
// engine.go is rskv in process, socket.go rskv through its daemon. Other stores
// live in a module of their own.
package kv

import (
	"io/fs"
	"path/filepath"
	"syscall"
	"time"
)

// Store is an open store. Its methods may be called from any goroutine.
type Store interface {
	// Worker returns a new way in. It is closed before the store.
	Worker() (Worker, error)
	// Usage is what the store has used so far.
	Usage() Usage
	Close() error
}

// Worker belongs to one goroutine.
type Worker interface {
	// Get appends the value of key to dst. The value is the caller's until the
	// next call.
	Get(dst, key []byte) (value []byte, found bool, err error)
	// Put stores value under key and keeps neither.
	Put(key, value []byte) error
	Close() error
}

// Batcher is a Worker that takes many operations at once.
type Batcher interface {
	// GetAll reads all keys and calls each with every answer, in any order; value
	// is valid during the call.
	GetAll(keys [][]byte, each func(i int, value []byte, found bool)) error
	// PutAll stores values under keys.
	PutAll(keys, values [][]byte) error
}

// Usage is what a store has used, as far as it tells; a zero is unknown.
type Usage struct {
	CPU    time.Duration // since it was opened, of the store's own process; 0 if that is this one
	Disk   int64         // bytes of blocks of its files
	Memory int64         // bytes of memory it was given, or holds

	Reads       uint64 // reads asked of it
	Cold        uint64 // reads of records from the device
	DeviceReads uint64
	DeviceRead  uint64 // bytes
	Writes      uint64 // bytes written to the device
}

// DiskUsage adds up the blocks of the files below dir, in bytes. What goes away
// meanwhile does not count.
func DiskUsage(dir string) int64 {
	sum := int64(0)
	// Errors leave a file out, which is all that can be done.
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += st.Blocks * 512
			}
		}
		return nil
	})
	return sum
}
