package fio

import (
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"rskv/bench/internal/measure"
	"rskv/engine"
)

const (
	// keySize is the length of a key in bytes: the number of its block, little
	// endian, in the low fileShift bits, and of its file above them.
	keySize   = 8
	fileShift = 40
)

// files numbers the files of a store's jobs. It is immutable once jobs run.
type files map[string]uint64

func (f files) number(j *Job) uint64 { return f[string(j.Engine)+"/"+j.File] }

// place gives the files of jobs their numbers.
func (f files) place(jobs []*Job) error {
	for _, j := range jobs {
		name := string(j.Engine) + "/" + j.File
		if _, known := f[name]; !known {
			f[name] = uint64(len(f))
		}
		if j.Size/j.unit() >= 1<<fileShift {
			return fmt.Errorf("%s: job %s: more than 2^%d keys", j.Place, j.Name, fileShift)
		}
	}
	return nil
}

// keyed is what backends of stores have in common.
type keyed struct {
	file uint64
	unit int64
}

// number is the key of a request.
func (k keyed) number(r *request) uint64 { return k.file<<fileShift | uint64(r.off/k.unit) }

func (k keyed) key(dst []byte, r *request) []byte {
	return binary.LittleEndian.AppendUint64(dst, k.number(r))
}

func (k keyed) stamp(r *request)       { putStamp(r.buf, k.number(r)) }
func (k keyed) check(r *request) error { return checkStamp(r.buf, k.number(r)) }

func (k keyed) room(size int64) ([]byte, error) { return make([]byte, size), nil }

// missing is the error of a read that found no key: all were stored before.
func (k keyed) missing(r *request) error {
	return fmt.Errorf("%w: key %d is gone", measure.ErrWrong, k.number(r))
}

// storeTarget is one store in process.
type storeTarget struct {
	store *engine.Store
	files files
	clock clock
}

func openStore(dir string, jobs []*Job, c clock) (*storeTarget, error) {
	t := &storeTarget{files: files{}, clock: c}
	if err := t.files.place(jobs); err != nil {
		return nil, err
	}
	var err error
	t.store, err = engine.Open(engine.Options{Dir: dir, Memory: jobs[0].Memory, CommitInterval: jobs[0].Commit})
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	return t, nil
}

func (t *storeTarget) segment() int64     { return 0 }
func (t *storeTarget) cpu() time.Duration { return 0 }
func (t *storeTarget) close() error       { return t.store.Close() }

func (t *storeTarget) about() string {
	o := t.store.Options()
	return fmt.Sprintf("store in process, memory %d MiB, commit %s, on %s", o.Memory>>20, interval(o.CommitInterval), t.store.Info().Backend)
}

// interval prints when commits are made.
func interval(d time.Duration) string {
	if d < 0 {
		return "when asked"
	}
	return "every " + d.String()
}

func (t *storeTarget) open(j *Job) (backend, error) {
	return &storeBackend{
		keyed: keyed{t.files.number(j), j.unit()}, target: t, session: t.store.NewSession(), ready: make(chan struct{}, 1),
		slots: make([]*request, j.Depth),
	}, nil
}

// storeBackend is a job's session.
type storeBackend struct {
	keyed
	target  *storeTarget
	session *engine.Session
	slots   []*request // by slot: what is in flight
	ops     []engine.Op
	keys    []byte
	done    []*request
	ready   chan struct{} // has a value when mu.synced may have something

	mu struct {
		sync.Mutex
		synced []*request
	}
}

func (b *storeBackend) submit(rs []*request) {
	b.ops, b.keys = b.ops[:0], b.keys[:0]
	for _, r := range rs {
		b.slots[r.slot] = r
		if r.kind == syncing {
			b.target.store.Commit(func(_ uint64, err error) { b.synced(r, err) })
			continue
		}
		op := engine.Op{Kind: engine.OpPut, Value: r.buf, Tag: uint64(r.slot)}
		if r.kind == reading {
			op.Kind, op.Value = engine.OpGet, r.room[:0]
		}
		at := len(b.keys)
		b.keys = b.key(b.keys, r)
		op.Key = b.keys[at:]
		b.ops = append(b.ops, op)
	}
	b.session.Start(b.ops)
	now := b.target.clock.now()
	for i := range b.ops {
		if op := &b.ops[i]; !op.Pending() {
			b.finish(op, now)
		}
	}
}

// finish takes an answer. Its value is looked at at once: the session's memory
// is lent until its next call.
func (b *storeBackend) finish(op *engine.Op, now int64) {
	r := b.slots[op.Tag]
	r.done, r.err = now, op.Err
	if r.kind == reading && r.err == nil {
		if r.buf = append(r.room[:0], op.Value...); !op.Found {
			r.err = b.missing(r)
		}
	}
	b.done = append(b.done, r)
}

// synced runs on a goroutine of the engine.
func (b *storeBackend) synced(r *request, err error) {
	r.done, r.err = b.target.clock.now(), err
	b.mu.Lock()
	b.mu.synced = append(b.mu.synced, r)
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

func (b *storeBackend) reap(dst []*request, wait time.Duration) []*request {
	n := len(dst)
	for {
		if dst = b.take(dst); len(dst) > n || wait == 0 {
			return dst
		}
		if !waitFor(b.session.Ready(), b.ready, wait) {
			return dst
		}
		now := b.target.clock.now()
		b.session.Complete(func(op *engine.Op) { b.finish(op, now) })
	}
}

func (b *storeBackend) take(dst []*request) []*request {
	dst = append(dst, b.done...)
	b.done = b.done[:0]
	b.mu.Lock()
	defer b.mu.Unlock()
	dst = append(dst, b.mu.synced...)
	b.mu.synced = b.mu.synced[:0]
	return dst
}

func (b *storeBackend) close() error {
	b.session.Close()
	return nil
}
