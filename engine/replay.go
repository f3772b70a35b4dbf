package engine

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"rskv/engine/internal/epoch"
	"rskv/engine/internal/manifest"
	"rskv/engine/internal/ordered"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// A pass goes over a stretch of the log at the speed of the device or of all
// processors, whichever is less:
//
//	        asked in order      whoever is free           looked at in order
//	log --> reads ahead ------> workers: verify, apply --> the caller
//
// Every page begins with a page header, so pages can be verified in any order.
// They can be applied in any order too: the newest record of a chain is the one
// with the highest address, and the links between records were right when they
// were written. So a worker raises an index entry to the address of a record if
// that is higher, and never lowers one. What an entry of a fuzzy snapshot points
// to is one of the records replayed, so it can only be raised as well. Workers do not
// raise it at once, but sort what they find by parts of the index: see replaySort.
const (
	// passAhead is how many pages are read or wait besides those being worked on.
	passAhead = 4
	// passWorkersMax bounds the workers: beyond, the device is what limits.
	passWorkersMax = 8
	// notesMost is how many notes of records that expire a worker keeps.
	notesMost = 64
)

// logPass is one pass over a part of a span.
type logPass struct {
	s        *Store
	span     manifest.Span
	seed     record.Seed
	pageSize int64
	until    int64 // byte address behind the last page worth reading
	use      passUse
	begin    record.Addr // lowest address to be applied
	memory   *ioring.Memory
	workers  []*passWorker
	pages    []*passPage
	sort     *replaySort // nil but for useIndex

	mu struct {
		sync.Mutex
		ready []*passPage // read, waiting for a worker
	}
}

// passPage is one page on its way. The reader owns it, then a worker, then the
// caller, in this order.
type passPage struct {
	ioring.Op
	from    record.Addr // first record to be looked at
	done    chan struct{}
	commits []commitInfo
	counts  []byte // memory of their counts
	records uint64
	at      record.Addr // behind the last record that verified
	why     error       // why it is not the end of the page
	err     error       // what ends the pass
}

type passWorker struct {
	pass    *logPass
	task    taskRef
	slot    *epoch.Slot
	batches []*replayBatch // by part, see replaySort
	notes   []expiryNote
	ends    [64]uint32 // see record.VerifyRun
}

// passResult is where a pass ended.
type passResult struct {
	at      record.Addr // first address that was not reached or did not verify
	why     error       // what was wrong there, nil at the end of the span
	records uint64
}

// passUse is what a pass does with the records.
type passUse uint8

const (
	useNone  passUse = iota // verify them
	useIndex                // bring the index up to date by them
	useOrder                // add their keys to the ordered index
)

var passStages = [...]Stage{StageVerify, StageReplay, StageOrder}

// pass verifies the records of a span from a record border on, up to the span's
// end or to the first that does not verify, uses them, and gives every page to fn in
// order.
func (s *Store) pass(m *manifest.Manifest, span manifest.Span, from record.Addr, use passUse, fn func(*passPage) error) (res passResult, err error) {
	p := &logPass{s: s, span: span, seed: record.NewSeed(m.StoreID, span.Generation), pageSize: 1 << m.PageBits, use: use, begin: m.Begin}
	res.at = max(from, span.Start)
	if span.End != 0 {
		p.until = span.End.Bytes()
	} else {
		_, p.until = s.dev.Extent()
	}
	first := res.at.Bytes() &^ (p.pageSize - 1)
	if err := p.start(first); err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()

	asked, report := first, s.reporter(passStages[use], p.until-first)
	for off := first; off < p.until; off += p.pageSize {
		for ; asked < p.until && asked < off+int64(len(p.pages))*p.pageSize; asked += p.pageSize {
			p.ask(asked, max(res.at, record.Addr(asked/record.Unit)))
		}
		page := p.page(off)
		s.opt.Runner.Wait(page.done)
		if page.err != nil {
			return res, page.err
		}
		if err := fn(page); err != nil {
			return res, err
		}
		res.at, res.why = page.at, page.why
		res.records += page.records
		report(off + p.pageSize - first)
		if page.why != nil {
			return res, nil // before the end of the span, for which replay refuses the log
		}
	}
	if res.why == nil && span.End == 0 {
		res.why = ioring.ErrNoSegment
	}
	if p.sort != nil {
		err = p.sort.finish(p.workers)
	}
	return res, err
}

// start takes the memory and starts the workers.
func (p *logPass) start(first int64) (err error) {
	workers := min(p.s.opt.Runner.Parallel(), passWorkersMax)
	pages := int64(workers + passAhead)
	if p.memory, err = ioring.AllocMemory(pages * p.pageSize); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	for i := range pages {
		page := &passPage{}
		page.Kind, page.Buf = ioring.Read, p.memory.Bytes()[i*p.pageSize:(i+1)*p.pageSize]
		p.pages = append(p.pages, page)
	}
	if p.use == useIndex {
		p.sort = newReplaySort(p.s, workers, p.until-first)
	}
	for range workers {
		w := &passWorker{pass: p, slot: p.s.epoch.Register()}
		if p.sort != nil {
			w.batches = make([]*replayBatch, len(p.sort.parts))
		}
		w.task.set(p.s.opt.Runner.Start("replay", w.step))
		p.workers = append(p.workers, w)
	}
	return nil
}

// stop waits for reads and workers, and gives the memory back.
func (p *logPass) stop() error {
	for _, page := range p.pages {
		if page.done != nil {
			p.s.opt.Runner.Wait(page.done)
		}
	}
	for _, w := range p.workers {
		w.task.Stop()
		w.slot.Release()
	}
	return p.memory.Free()
}

func (p *logPass) page(off int64) *passPage {
	return p.pages[off/p.pageSize%int64(len(p.pages))]
}

// ask starts reading the page at off, of which records from an address on count.
func (p *logPass) ask(off int64, from record.Addr) {
	page := p.page(off)
	done := make(chan struct{})
	*page = passPage{Op: ioring.Op{Kind: ioring.Read, Off: off, Buf: page.Buf}, from: from, done: done,
		commits: page.commits[:0], counts: page.counts[:0]}
	page.Done = func(*ioring.Op) {
		p.mu.Lock()
		p.mu.ready = append(p.mu.ready, page)
		p.mu.Unlock()
		for _, w := range p.workers {
			w.task.Wake()
		}
	}
	p.s.dev.Submit([]*ioring.Op{&page.Op})
}

// step is one step of a worker: one page.
func (w *passWorker) step() time.Duration {
	p := w.pass
	p.mu.Lock()
	if len(p.mu.ready) == 0 {
		p.mu.Unlock()
		return -1
	}
	page := p.mu.ready[0]
	p.mu.ready = p.mu.ready[1:]
	p.mu.Unlock()
	done := page.done
	w.look(page)
	close(done)
	return 0
}

// look verifies and applies the records of a page.
func (w *passWorker) look(page *passPage) {
	p := w.pass
	page.at = page.from
	if page.Err != nil {
		page.why = page.Err
		if !errors.Is(page.Err, ioring.ErrNoSegment) {
			page.err = fmt.Errorf("%w: read of log page 0x%x: %w", ErrIO, page.Off, page.Err)
		}
		return
	}
	base := record.Addr(page.Off / record.Unit)
	until := base + record.Addr(p.pageSize/record.Unit)
	if p.span.End != 0 {
		until = min(until, p.span.End)
	}
	for page.at < until && page.why == nil && page.err == nil {
		if page.at == base || !w.run(page, base, until) {
			w.next(page, base)
		}
	}
	p.s.sweep.expiring.add(w.notes, p.s.opt.Clock.Wall())
	w.notes = w.notes[:0]
}

// run goes over records of users that follow each other, and reports whether there are
// any: whatever else comes next is left to next.
func (w *passWorker) run(page *passPage, base, until record.Addr) bool {
	first := page.at
	buf := page.Buf[(first-base)*record.Unit : (until-base)*record.Unit]
	n := record.VerifyRun(buf, w.pass.seed, first, w.ends[:])
	if n == 0 {
		return false
	}
	page.at += record.Addr(w.ends[n-1] / record.Unit)
	page.records += uint64(n)
	if w.pass.use == useNone {
		return true
	}
	begin := uint32(0)
	for _, end := range w.ends[:n] {
		if page.err = w.apply(first+record.Addr(begin/record.Unit), buf[begin:end]); page.err != nil {
			break
		}
		begin = end
	}
	return true
}

// next goes over one record.
func (w *passWorker) next(page *passPage, base record.Addr) {
	p, a := w.pass, page.at
	buf := page.Buf[(a-base)*record.Unit:]
	w0, w1, ok := record.Verify(buf, p.seed, a)
	if !ok {
		page.why = errChecksum
		return
	}
	system := record.KindOf(w1) == record.System
	if a == base && !(system && record.KeyLen(w0) == record.TypePage) {
		page.why = errNoHeader
		return
	}
	image := buf[:record.Size(w0, w1)]
	page.at += record.Addr(len(image) / record.Unit)
	page.records++
	switch {
	case system && record.KeyLen(w0) == record.TypeCommit:
		page.err = page.commit(a, image[record.HeaderSize:], p.span.Generation)
	case !system && p.use != useNone:
		page.err = w.apply(a, image)
	}
}

// apply uses a record of a user.
func (w *passWorker) apply(a record.Addr, image []byte) error {
	p := w.pass
	w0, w1 := record.Words(image)
	switch {
	case w1&record.Invalid != 0 || a < p.begin:
		return nil
	case p.use == useOrder:
		return w.order(image, w0, w1)
	case w1&record.Expiry != 0:
		w.note(a, image, w0, w1)
	}
	return w.add(record.Hash(p.s.seed, record.Key(image, w0)), a)
}

// note counts a record that expires.
func (w *passWorker) note(a record.Addr, image []byte, w0, w1 uint64) {
	r := logRecord{addr: a, w0: w0, w1: w1, image: image}
	w.notes = append(w.notes, expiryNote{addr: a, expiry: r.expiry(), bytes: r.weight()})
	if len(w.notes) >= notesMost {
		w.pass.s.sweep.expiring.add(w.notes, w.pass.s.opt.Clock.Wall())
		w.notes = w.notes[:0]
	}
}

// commit notes a commit record, for the caller to look at in order.
func (page *passPage) commit(a record.Addr, body []byte, generation uint64) error {
	c, err := decodeCommit(body, generation)
	if err != nil {
		return corrupt("commit record", a, err)
	}
	at := len(page.counts)
	page.counts = append(page.counts, c.counts...)
	c.counts = page.counts[at:]
	// What follows up to the sector's end is padding, which a torn write may have
	// left out.
	page.at = sectorEnd(page.at)
	c.addr, c.until = a, page.at
	page.commits = append(page.commits, c)
	return nil
}

// orderPass adds the keys of a span to the ordered index.
func (s *Store) orderPass(m *manifest.Manifest, span manifest.Span, from record.Addr) (passResult, error) {
	return s.pass(m, span, from, useOrder, func(*passPage) error { return nil })
}

// order adds the key of a record to the ordered index. Pages come in any order, so
// where the key may be dead it stays in doubt whatever comes next.
func (w *passWorker) order(buf []byte, w0, w1 uint64) error {
	s := w.pass.s
	expiry := record.ExpiryOf(buf, w0, w1)
	dead := record.KindOf(w1) == record.Tombstone || expiry != 0 && expiry <= s.clock.now()
	for {
		w.slot.Enter()
		st := s.order.tree.Plant(record.Key(buf, w0), dead)
		w.slot.Exit()
		switch st {
		case ordered.Done:
			return nil
		case ordered.NoMemory:
			return fmt.Errorf("%w: %d bytes: %w", ErrMemoryTooSmall, s.opt.Memory, errOrderMemory)
		}
		s.opt.Runner.Yield()
	}
}
