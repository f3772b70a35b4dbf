package engine

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"

	"rskv/engine/internal/index"
	"rskv/engine/internal/record"
)

// compactWorker is one of those who carry a pass out. Its fields belong to its task.
type compactWorker struct {
	c       *compactor
	task    taskRef // none for the first: it is the compactor's
	session *Session
	// busy is set before the worker looks for work, or when it gets some, and cleared
	// when it has found none and nothing of it waits for the disk.
	busy atomic.Bool
	mail largeMail

	now      int64        // by the store's clock, when the page was taken
	breathed int64        // clock time when others were let run last
	gone     []expiryNote // records of the page that expire
	found    []uint32     // offsets of records of a page, in units
	suspects int          // of that page
	group    judgedGroup
	ops      [compactGroup]Op // that have to be carried out by themselves
	n        int              // of them
}

// judgedGroup are the records that are judged in one section.
type judgedGroup struct {
	n      int
	addrs  [compactGroup]record.Addr
	hashes [compactGroup]uint64
	images [compactGroup][]byte
	places [compactGroup]place
	// expired: it is not copied, but its key may have to leave the count.
	expired [compactGroup]bool
	lines   [compactGroup]uintptr
}

// largeMail are parts of large values that others have met: chunks and heads. All of
// one key go to one worker, whose session sees to them one after the other: else each
// would write the whole value anew, all but one in vain.
type largeMail struct {
	count atomic.Int64

	mu    sync.Mutex
	parts []metPart // guarded by mu
}

type metPart struct {
	addr record.Addr
	key  []byte
	head []byte // image of the record; nil: a chunk
}

// mailMax is how many parts wait for a worker before nobody takes another page.
const mailMax = 64

func newCompactWorker(c *compactor, i int) *compactWorker {
	w := &compactWorker{c: c, session: c.store.NewSession()}
	w.session.mover = true
	w.session.notify = w.task.Wake
	if i == 0 {
		w.session.notify = c.task.Wake
	}
	return w
}

// step is one step of a worker's own task.
func (w *compactWorker) step() time.Duration {
	if !w.task.ready() {
		return time.Millisecond // Open is still starting the tasks
	}
	return w.work()
}

// work does something of what there is to do. It returns 0 when it has found
// something, else how long to wait, negative until the worker is woken.
func (w *compactWorker) work() time.Duration {
	c := w.c
	w.busy.Store(true)
	w.session.Complete(w.answer)
	found, wait := false, time.Duration(-1)
	if w.session.Pending() < compactPending {
		if found = w.openMail(); !found {
			found, wait = w.take()
		}
	}
	if found {
		return 0
	}
	// Reads that were given up bring their memory back.
	if w.session.Pending() == 0 && w.session.queue.inFlight == 0 {
		w.mail.mu.Lock()
		w.busy.Store(len(w.mail.parts) > 0)
		w.mail.mu.Unlock()
		if w != c.workers[0] {
			c.task.Wake() // it may have seen that the worker was busy
		}
	}
	return wait
}

// post gives a part of a large value to the worker whose business its key is. What
// is handed over is copied.
func (w *compactWorker) post(a record.Addr, key, head []byte) {
	c := w.c
	to := c.workers[record.Hash(c.store.seed, key)%uint64(len(c.workers))]
	to.mail.mu.Lock()
	to.mail.parts = append(to.mail.parts, metPart{a, bytes.Clone(key), bytes.Clone(head)})
	to.mail.count.Add(1)
	to.busy.Store(true)
	c.posted.Add(1)
	to.mail.mu.Unlock()
	if to != w {
		to.session.notify()
	}
}

// openMail begins to move some of the parts that have been posted; false: there are
// none.
func (w *compactWorker) openMail() bool {
	w.mail.mu.Lock()
	n := min(len(w.mail.parts), compactGroup)
	parts := w.mail.parts[:n:n]
	w.mail.parts = w.mail.parts[n:]
	full := w.mail.count.Add(int64(-n))+int64(n) >= mailMax
	w.mail.mu.Unlock()
	for i, m := range parts {
		if m.head == nil {
			w.ops[i].moveChunk(m.addr, m.key)
		} else {
			w.ops[i].moveRecord(m.addr, m.key, m.head, m.addr)
		}
	}
	w.n = n
	w.start()
	if full {
		w.c.wake()
	}
	return n > 0
}

// mailed reports whether a worker has so many parts to see to that there should not
// be more.
func (c *compactor) mailed() bool {
	for _, w := range c.workers {
		if w.mail.count.Load() >= mailMax {
			return true
		}
	}
	return false
}

// take takes a page or a stretch and carries out what there is to do.
func (w *compactWorker) take() (found bool, wait time.Duration) {
	c := w.c
	if c.failed.Load() != nil {
		return false, -1
	}
	if r := c.reader.Load(); r != nil {
		if c.mailed() {
			return false, -1
		}
		if wait := c.pace(); wait > 0 {
			return false, wait
		}
		if !c.mayGoOn(r) {
			r.cut()
		}
		page, _, err := r.next()
		if page != nil {
			w.prepare()
			err = w.judgePage(page)
			r.release(page)
		}
		c.fail(err)
		return page != nil, -1
	}
	if r := c.resolver.Load(); r != nil {
		e := r.take()
		if e != nil {
			c.fail(w.lookInto(r, e))
			r.release(e)
		}
		return e != nil, -1
	}
	return false, -1
}

// answer notes how a look-up ended.
func (w *compactWorker) answer(op *Op) { w.c.fail(op.Err) }

// judgePage judges the records of a page.
func (w *compactWorker) judgePage(p *readPage) error {
	s := w.c.store
	units := record.Addr(s.opt.PageSize / record.Unit)
	base := p.from &^ (units - 1)
	w.found, w.suspects = w.found[:0], 0
	records := int64(0)
	w.now, w.gone = s.clock.now(), w.gone[:0]
	check := pageCheck{seed: s.seedAt(p.span.Start), damaged: damagedLog}
	check.record = func(r *logRecord) error {
		if r.isUser() {
			records++
			if record.KindOf(r.w1) == record.Tombstone || r.expired(w.now) {
				w.session.doubtDead(r.key())
			}
		}
		if w.wants(r) {
			w.found = append(w.found, uint32(r.addr-base))
		}
		return nil
	}
	if err := check.run(p.Buf, base, p.from, min(base+units, p.span.End)); err != nil {
		return err
	}
	s.sweep.expiring.add(w.gone, w.now)
	for i := 0; i < len(w.found); {
		i = w.gather(p.Buf, base, i)
		if err := w.judge(); err != nil {
			return err
		}
		w.start()
	}
	w.c.read.Add(int64(s.opt.PageSize))
	w.c.records.Add(records)
	for {
		most := w.c.perPage.Load()
		if int64(w.suspects) <= most || w.c.perPage.CompareAndSwap(most, int64(w.suspects)) {
			return nil
		}
	}
}

// wants reports whether the record is to be judged.
func (w *compactWorker) wants(r *logRecord) bool {
	if !r.isUser() {
		return record.KindOf(r.w1) == record.System && record.KeyLen(r.w0) == record.TypeChunk
	}
	expiry := r.expiry()
	if expiry != 0 {
		w.gone = append(w.gone, expiryNote{addr: r.addr, expiry: expiry, bytes: -r.weight()})
	}
	return record.KindOf(r.w1) != record.Tombstone && (expiry == 0 || expiry > w.now || w.c.store.sweep.counted(r.addr, expiry))
}

// gather makes a group of the records from number i on, and posts the parts of large
// values among them. It returns the number of the next.
func (w *compactWorker) gather(page []byte, base record.Addr, i int) int {
	g := &w.group
	g.n = 0
	for bytes := 0; i < len(w.found) && g.n < compactGroup && bytes < groupBytes; i++ {
		a := base + record.Addr(w.found[i])
		image := page[int(w.found[i])*record.Unit:]
		w0, w1 := record.Words(image)
		image = image[:record.Size(w0, w1)]
		expiry := record.ExpiryOf(image, w0, w1)
		g.expired[g.n] = expiry != 0 && expiry <= w.now
		switch kind := record.KindOf(w1); {
		case kind == record.System:
			if key := chunkKey(image, w1); key != nil {
				w.post(a, key, nil)
			}
			continue
		case kind == record.Big && !g.expired[g.n]:
			w.post(a, record.Key(image, w0), image)
			continue
		}
		g.addrs[g.n], g.images[g.n] = a, image
		g.hashes[g.n] = record.Hash(w.c.store.seed, record.Key(image, w0))
		g.n++
		bytes += len(image)
	}
	return i
}

// chunkKey is the key that a chunk belongs to.
func chunkKey(image []byte, w1 uint64) []byte {
	payload := image[record.HeaderSize:][:record.ValueLen(w1)]
	if n := len(payload); n > 2 {
		if k := int(payload[n-2]) | int(payload[n-1])<<8; k > 0 && k+2 < n {
			return payload[n-2-k : n-2]
		}
	}
	return nil
}

// start carries out the operations.
func (w *compactWorker) start() {
	if w.n == 0 {
		return
	}
	ops := w.ops[:w.n]
	w.n = 0
	w.session.Start(ops)
	for i := range ops {
		if !ops[i].Pending() {
			w.answer(&ops[i])
		}
	}
}

// judge judges the group. It leaves the section where a copy needs a log page that
// is not to be had, and begins anew with what is left.
func (w *compactWorker) judge() error {
	s := w.session
	w.breathe()
	for i := 0; i < w.group.n; {
		if err := s.enter(true); err != nil {
			return err
		}
		if err := s.store.log.Err(); err != nil {
			s.exit()
			return s.store.Err()
		}
		w.locate(i)
		var out outcome
		i, out = w.judgeFrom(i)
		s.exit()
		s.flush(nil)
		op := Op{Kind: opMove}
		switch s.failed(&op, out) {
		case again:
			s.pause()
		case noSpace:
			s.waitSpace()
		}
		if op.Err != nil {
			return op.Err
		}
	}
	return nil
}

// locate looks up the chains of the group's records from number i on, and asks for
// the memory that will be looked at.
func (w *compactWorker) locate(i int) {
	g, s := &w.group, w.session
	x, log := s.store.index, s.store.log
	x.Prefetch(g.hashes[i:g.n])
	lines := g.lines[:0]
	for ; i < g.n; i++ {
		at := &g.places[i]
		at.slot, at.entry = x.Find(g.hashes[i])
		if at.head = index.Address(at.entry); at.head > g.addrs[i] && at.head >= s.mem {
			lines = append(lines, uintptr(log.Pointer(at.head)))
		}
	}
	index.PrefetchLines(lines)
}

// judgeFrom judges the records from number i on; it returns the number of the first
// that it could not judge, and why.
func (w *compactWorker) judgeFrom(i int) (int, outcome) {
	g, s := &w.group, w.session
	for ; i < g.n; i++ {
		from, at := g.addrs[i], &g.places[i]
		image := g.images[i]
		w0, w1 := record.Words(image)
		key := record.Key(image, w0)
		for tries := 0; ; tries++ {
			if at.head < from {
				break // its chain has gone, or never had it
			}
			if at.head > from || w1&record.Expiry != 0 {
				s.walk(at.head, key, at)
				if at.addr < from || at.addr != from && at.kind == inMemory {
					break
				}
				if at.addr > from {
					if !g.expired[i] {
						w.suspect(from, at.addr, key, image)
					}
					break
				}
			}
			if g.expired[i] {
				if at.kind == disk || record.Sweep(at.ptr) {
					w.c.dropped.Add(1)
				}
				break
			}
			out, ok := s.appendCopy(image, at)
			if ok {
				break
			}
			if out == finished && tries >= spinMax {
				out = again
			}
			if out != finished {
				return i, out
			}
			at.slot, at.entry = s.store.index.Find(g.hashes[i])
			at.head = index.Address(at.entry)
		}
	}
	return i, finished
}

// suspect puts a record on the list. Where that is full it is looked up by itself.
func (w *compactWorker) suspect(from, at record.Addr, key, image []byte) {
	c := w.c
	w.suspects++
	if p, ok := newSuspect(c.begin, from, at, key); ok && c.space.suspects.add(p) {
		return
	}
	w.ops[w.n].moveRecord(from, key, image, from)
	w.n++
}

// lookInto decides about the suspects whose records have been read.
func (w *compactWorker) lookInto(r *resolver, e *extent) error {
	s := w.c.store
	if e.Err != nil {
		return fmt.Errorf("%w: read of log address %v: %w", ErrIO, record.Addr(e.Off/record.Unit), e.Err)
	}
	for _, p := range e.list {
		from, at := p.from(r.begin), p.at(r.begin)
		buf := e.Buf[at.Bytes()-e.Off:]
		w0, w1 := record.Words(buf)
		behind := record.HeaderSize + record.KeyLen(w0)
		if from != at && record.KindOf(w1) != record.System && w1&record.Invalid == 0 &&
			behind <= len(buf) && xxhash.Sum64(buf[record.HeaderSize:behind]) == p.sum {
			continue // dead: the bytes of the key vouch for themselves
		}
		size := record.Size(w0, w1)
		switch {
		case at.Bytes()+int64(size) > s.pageEnd(at):
			return corrupt("record", at, errRecordLength)
		case size > len(buf):
			r.lookAgain(p, size)
			continue
		}
		if _, _, ok := record.Verify(buf[:size], s.seedAt(at), at); !ok {
			return corrupt("record", at, errChecksum)
		}
		if from == at {
			w.ops[w.n].moveRecord(from, record.Key(buf, w0), buf[:size], from)
			if w.n++; w.n == len(w.ops) {
				w.start()
			}
			continue
		}
		// Another key of the chain: the suspect's may be behind it. Where the chain
		// comes to the suspect itself, nobody has a newer record.
		r.lookAgain(p.onward(r.begin, max(record.Prev(w0), from)), 0)
	}
	w.start()
	return nil
}
