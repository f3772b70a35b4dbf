package fio

import (
	"encoding/binary"
	"fmt"
	"time"

	"rskv/bench/internal/measure"
)

// kind is what a request does: reading, writing or, besides these, syncing.
type kind int

const syncing kind = 2

// request is one I/O. It belongs to its job, from Submit until it is reaped to
// the backend.
type request struct {
	kind kind
	slot int    // which of the job's requests it is
	off  int64  // in the job's file, bytes
	buf  []byte // of the length of the request; after a read what was read
	room []byte // the memory of buf

	begin int64 // ns on the clock: before Submit
	done  int64 // when it had finished, set by the backend
	err   error
}

// backend is what requests of one job go to. It belongs to the job's goroutine.
type backend interface {
	// submit hands requests over, which may finish before it returns.
	submit(rs []*request)
	// reap appends finished requests to dst. With none there it waits for one, at
	// most for the given time if that is not negative; it may be late.
	reap(dst []*request, wait time.Duration) []*request
	// room is memory for one request of up to size bytes.
	room(size int64) ([]byte, error)
	// stamp marks what a request writes, check what one has read.
	stamp(r *request)
	check(r *request) error
	close() error
}

// target is what all jobs of one kind share.
type target interface {
	// open makes a backend for a job.
	open(j *Job) (backend, error)
	// segment is what no request may cross a multiple of; 0: nothing.
	segment() int64
	// cpu is processor time that somebody else takes for the target's sake.
	cpu() time.Duration
	// about is a sentence on what is measured.
	about() string
	close() error
}

// clock counts ns from its start.
type clock struct{ begin time.Time }

func (c clock) now() int64 { return int64(time.Since(c.begin)) }

// putStamp and checkStamp are what a value or block begins with: where it
// belongs. Shorter ones hold its low bytes.
func putStamp(b []byte, number uint64) {
	var word [8]byte
	binary.LittleEndian.PutUint64(word[:], number)
	copy(b, word[:])
}

func checkStamp(b []byte, number uint64) error {
	var want [8]byte
	binary.LittleEndian.PutUint64(want[:], number)
	n := min(len(b), len(want))
	if n == 0 || string(b[:n]) != string(want[:n]) {
		return fmt.Errorf("%w: block %d begins with %x", measure.ErrWrong, number, b[:n])
	}
	return nil
}
