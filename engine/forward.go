package engine

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"rskv/engine/internal/index"
	"rskv/engine/internal/record"
)

// Data that fits into memory stays there. By itself a log does not see to that:
// every commit freezes what is in memory, so that whatever is written again goes to
// the tail, and the pages move through memory as fast as that grows. What is only
// read, or not written again in time, would leave with them, and from then on be
// read from the device. So what lives in the next pages to leave is copied to the
// tail, as by compaction (see move.go), while it takes less than half of the log's
// memory:
//
//	on disk only |  looked at  | next | ...                              | tail
//	-------------+-------------+------+----------------------------------+
//	            head          at    border
//	                 live records -----------------------------------------> copies
//
// Nothing waits for it: if writers are faster, head overtakes it, and it goes on
// from there. A page that is looked at has been flushed, so of its bytes only a mark may change.
// The copies add to the log what compaction has to look at; without them each would
// be a random read for whoever wants it next.
//
// Whether a record lives, the index tells: it does if it is the newest of its
// chain. One that shares its chain with a newer record of another key is left to
// the device; with tags of 15 bits that is one in some thousands.
//
// If live were more than is believed, every copy could push another one out of
// memory, without an end. So no more is copied than others have appended.
type forwarder struct {
	store   *Store
	task    taskRef
	session *Session
	at      atomic.Uint64 // address below which there is nothing more to look at

	// Owned by the task's step, as all below.
	appended uint64 // by everybody, when credit was last added to
	copied   int64  // by this task since then
	credit   int64  // bytes that may be copied

	hashes  [groupOps]uint64
	places  [groupOps]forwardPlace // of the same records
	slots   [groupOps]*uint64
	entries [groupOps]uint64
	found   []forwardFound
	images  []byte
	ops     []Op
}

type forwardPlace struct {
	addr record.Addr
	ptr  unsafe.Pointer
	size int
}

// forwardFound is a record to be copied: its image stands in images.
type forwardFound struct {
	addr record.Addr
	off  int
}

// forwardBlock is for how many records the index is asked ahead: while that is on its
// way, those before them are found, and the next ones read.
const forwardBlock = 8

// forwardAhead is how many pages the border is ahead of head: one of so many.
const forwardAhead = 20

func (f *forwarder) init(s *Store) {
	f.store = s
	f.session = s.NewSession()
	f.session.mover, f.session.forwards = true, true
	f.session.notify = f.task.Wake
}

// border is the address up to which pages are looked at now.
func (f *forwarder) border() record.Addr {
	log := f.store.log
	size := int64(log.PageSize())
	ahead := max(1, log.Memory()/size/forwardAhead)
	return min(log.Leaving(uint64(ahead)), log.Flushed()) &^ (record.Addr(size/record.Unit) - 1)
}

// why says why records are not copied; "" if they are.
func (f *forwarder) why() string {
	s := f.store
	live, memory := s.liveBytes.Load(), s.log.Memory()
	switch {
	case s.tasks.stopped(TaskForward):
		return "it is stopped"
	case live > memory/2:
		return fmt.Sprintf("%d bytes are live, more than half of %d bytes of log in memory", live, memory)
	case s.log.Full() || s.room.closed.Load() || s.room.pressed():
		return "the disk is full, or its budget nearly used"
	case s.Err() != nil:
		return "the store is read-only"
	}
	return ""
}

// next says what the task waits for, for people.
func (f *forwarder) next() string {
	if why := f.why(); why != "" {
		return "nothing is kept in memory: " + why
	}
	return "when pages are about to leave memory"
}

func (f *forwarder) due() bool { return f.at.Load() < uint64(f.border()) && f.why() == "" }

// look wakes the task if there is something to be done. It is called whenever the
// log has moved.
func (f *forwarder) look() {
	if f.task.ready() && f.due() {
		f.task.Wake()
	}
}

// step is one step of the task: a group of records that live.
func (f *forwarder) step() time.Duration {
	if !f.task.ready() {
		return time.Millisecond // Open is still starting the tasks
	}
	f.session.Complete(f.answer)
	if f.session.Pending() > 0 || !f.due() {
		return -1
	}
	began := f.store.opt.Clock.Monotonic()
	f.earn()
	border := f.border()
	for record.Addr(f.at.Load()) < border && len(f.found) < groupOps && len(f.images) < groupBytes {
		if err := f.session.enter(false); err != nil {
			return -1
		}
		f.gather(border)
		f.session.exit()
	}
	f.copy()
	f.store.tasks.ran(TaskForward, began, nil)
	return 0
}

// earn adds to the credit what others have appended.
func (f *forwarder) earn() {
	appended := f.store.log.Appended()
	others := max(int64(appended-f.appended)-f.copied, 0)
	f.credit = min(f.credit+others, f.store.log.Memory()/2)
	f.appended, f.copied = appended, 0
}

// gather takes what lives of the next records of a page. It runs in a section.
func (f *forwarder) gather(border record.Addr) {
	n, log := f.session, f.store.log
	at := max(record.Addr(f.at.Load()), n.mem)
	end := min(border, log.PageEnd(at))
	count, asked, known := 0, 0, 0
	for at < end && count < groupOps {
		p := log.Pointer(at)
		w0, w1 := record.Load0(p), record.Load1(p)
		size := record.Size(w0, w1)
		if key := f.keyOf(p, w0, w1, size); key != nil {
			f.hashes[count], f.places[count] = record.Hash(f.store.seed, key), forwardPlace{at, p, size}
			if count++; count == asked+forwardBlock {
				f.store.index.Prefetch(f.hashes[asked:count])
				known = f.find(known, asked)
				asked = count
			}
		}
		at += record.Addr(size / record.Unit)
	}
	f.at.Store(uint64(at))
	f.store.index.Prefetch(f.hashes[asked:count])
	f.find(known, count)
	for i, r := range f.places[:count] {
		// The head of a value in chunks tells whether a chunk lives, see move.go.
		if !isChunkAt(r.ptr) && index.Address(f.entries[i]) != r.addr {
			continue
		}
		if f.credit < int64(r.size) {
			continue
		}
		f.credit -= int64(r.size)
		f.copied += int64(r.size)
		f.found = append(f.found, forwardFound{r.addr, len(f.images)})
		// Word by word what others may mark meanwhile, see sweeper.go.
		f.images = binary.LittleEndian.AppendUint64(f.images, record.Load0(r.ptr))
		f.images = binary.LittleEndian.AppendUint64(f.images, record.Load1(r.ptr))
		f.images = append(f.images, record.Bytes(r.ptr, record.HeaderSize, r.size-record.HeaderSize)...)
	}
}

// find finds the entries of records from number i to end, and returns end.
func (f *forwarder) find(i, end int) int {
	f.store.index.FindAll(f.hashes[i:end], f.slots[i:end], f.entries[i:end])
	return end
}

func isChunkAt(p unsafe.Pointer) bool {
	w0, w1 := record.Load0(p), record.Load1(p)
	return record.KindOf(w1) == record.System && record.KeyLen(w0) == record.TypeChunk
}

// keyOf is the key of a record, or chunk, that may live; nil: there is none.
func (f *forwarder) keyOf(p unsafe.Pointer, w0, w1 uint64, size int) []byte {
	switch record.KindOf(w1) {
	case record.System:
		if record.KeyLen(w0) == record.TypeChunk {
			return chunkKey(record.Bytes(p, 0, size), w1)
		}
		return nil
	case record.Tombstone:
		return nil
	}
	if w1&(record.Invalid|record.Sealed) != 0 || w1&record.Expiry != 0 && f.session.past(record.LoadExpiry(p, w0)) {
		return nil
	}
	return record.Key(record.Bytes(p, 0, size), w0)
}

// copy copies what was gathered.
func (f *forwarder) copy() {
	f.ops = f.ops[:0]
	for i, r := range f.found {
		end := len(f.images)
		if i+1 < len(f.found) {
			end = f.found[i+1].off
		}
		image := f.images[r.off:end]
		w0, w1 := record.Words(image)
		f.ops = append(f.ops, Op{})
		op := &f.ops[len(f.ops)-1]
		if record.KindOf(w1) == record.System {
			op.moveChunk(r.addr, chunkKey(image, w1))
		} else {
			op.forwardRecord(r.addr, record.Key(image, w0), image)
		}
	}
	f.found = f.found[:0]
	f.session.Start(f.ops)
	f.images = f.images[:0]
}

// answer takes no answer: what could not be copied is read from the device when it is
// wanted.
func (f *forwarder) answer(*Op) {}

// stop ends the task.
func (f *forwarder) stop() {
	f.task.Stop()
	f.session.Close()
}
