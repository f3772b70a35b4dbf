package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"rskv/engine/internal/record"
)

// A scan reads the log once, from its begin to a cut, and returns the records that
// are the newest of their key below the cut:
//
//	begin        cursor                          cut           tail
//	|---returned---|---------to be looked at------|--no matter--|
//
// The cut is a commit made when the scan begins, so nothing below it changes; one
// look-up per record, see newest.go, tells whether it is the newest there. So each
// key has exactly one place in a scan, however it is changed meanwhile, no memory
// is needed for what has been returned, and between two pages there is nothing
// but the cursor.
//
// What has expired is not returned, but for one case: the key was given longer to
// live, above the cut. Then it is asked for whether it is there now.
//
// Compaction copies records over the cut and makes the log begin later. It waits
// for scans for a while, see scanHolds; a scan that stands below the new begin
// gets ErrCursor, since keys it has not met yet have left for above the cut.
const (
	// ScanCountDefault is how many entries a page of a scan holds unless told
	// otherwise, ScanCountMax the most.
	ScanCountDefault = 100
	ScanCountMax     = 65_536
	// ScanBytesDefault is how many bytes of keys and values end a page unless told
	// otherwise.
	ScanBytesDefault = 4 << 20

	// scanWork is how many bytes of log are read for one page: then it ends,
	// though nothing may have been found.
	scanWork = 16 << 20
	// scanGroup is how many records are looked up at a time.
	scanGroup = 4 * groupOps
	// scanTries is how often a scan that has not returned anything begins again
	// when compaction was faster.
	scanTries = 10
)

// ScanOptions of Store.Scan.
type ScanOptions struct {
	// Prefix is what keys begin with. Without the ordered index the whole log is read
	// whatever it is.
	Prefix []byte
	// From is the lowest key, To the lowest that is above all; nil: there is no such
	// bound. Reverse begins at the highest. They need the ordered index.
	From, To []byte
	Reverse  bool
	// KeysOnly leaves the values out.
	KeysOnly bool
	// Cursor is ScanPage.Next of the page before; nil begins a scan. Prefix may not
	// change on the way, or the pages together mean nothing.
	Cursor []byte
	// Count is the most entries of a page, 1 to ScanCountMax; 0 takes
	// ScanCountDefault. Bytes of keys and values end a page too, which is always
	// longer by its last entry; 0 takes ScanBytesDefault.
	Count int
	Bytes int
}

// Entry is a key and its value; nil if that was not asked for.
type Entry struct{ Key, Value []byte }

// ScanPage is a part of a scan. Its memory is the caller's.
type ScanPage struct {
	Entries []Entry // may be empty on the way
	Next    []byte  // the cursor for the next page; nil: that was the last
}

// Scan returns a page of the live keys: in their order if the store has been opened
// with the ordered index, else in that of the log. Over all pages of a scan every key
// that is there from its beginning to its end appears exactly once; one that comes or
// goes meanwhile appears once or not at all, and none that was deleted before.
//
// # In the order of the keys
//
// An entry has the value that its key has when the page is made. A scan costs what it
// returns: a step in the index and a get for each, and reads of the device for those
// that are not in memory, many at a time. A cursor is good for as long as the store is
// opened with the ordered index.
//
// # In the order of the log
//
// An entry has the value that its key had at the beginning of the scan or, where that
// is a large one, a later one. A scan begins with a commit. While none can be made,
// since the disk is full or the store read-only, it returns what the last one held.
//
// Between two calls nothing is kept; a cursor is good for another process too. It
// is refused with ErrCursor when it is of no scan of this store, or when compaction
// has passed it, for which a scan has at least scanHold between two pages and
// scanHoldMax in all while the disk budget does not press.
//
// A scan costs reading the log once, and a read of the device for each record
// there that has a newer one which is not in memory either.
func (s *Store) Scan(ctx context.Context, opt ScanOptions) (ScanPage, error) {
	def(&opt.Count, ScanCountDefault)
	def(&opt.Bytes, ScanBytesDefault)
	if opt.Count < 0 || opt.Count > ScanCountMax || opt.Bytes < 0 {
		return ScanPage{}, fmt.Errorf("%w: scan: page of %d entries and %d bytes", ErrBadOp, opt.Count, opt.Bytes)
	}
	ordered, err := s.inOrder(&opt)
	if err != nil {
		return ScanPage{}, err
	}
	if ordered {
		page, err := s.orderedPage(ctx, &opt)
		if err != nil {
			return ScanPage{}, fmt.Errorf("scan: %w", err)
		}
		return page, nil
	}
	for try := 1; ; try++ {
		page, err := s.scanPage(ctx, &opt)
		switch {
		case errors.Is(err, ErrCursor) && opt.Cursor == nil && try < scanTries:
		case err != nil:
			return ScanPage{}, fmt.Errorf("scan: %w", err)
		default:
			return page, nil
		}
	}
}

// scanPage is one attempt at a page.
func (s *Store) scanPage(ctx context.Context, opt *ScanOptions) (page ScanPage, err error) {
	k, err := s.openScan(ctx, opt.Cursor, opt.Prefix, false)
	if err != nil {
		return page, err
	}
	defer func() { k.close(err) }()
	k.stop = k.at + scanWork/record.Unit
	bytes := 0
	err = k.run(ctx, func() int {
		if bytes >= opt.Bytes {
			return 0
		}
		return opt.Count - len(page.Entries)
	}, func(r *logRecord) error {
		e, ok, err := k.entry(r, opt.KeysOnly)
		if ok {
			bytes += len(e.Key) + len(e.Value)
			page.Entries = append(page.Entries, e)
		}
		return err
	})
	if err == nil {
		page.Next = k.next()
	}
	return page, err
}

// All returns the live keys with their values, as Scan does; the memory of an
// entry is the caller's. The second is the error that ended it: it comes with an
// empty entry, as the last.
func (s *Store) All(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		any := false
		for try := 1; ; try++ {
			err := s.all(ctx, func(e Entry) bool {
				any = true
				return yield(e, nil)
			})
			if errors.Is(err, ErrCursor) && !any && try < scanTries {
				continue
			}
			if err != nil && err != errEnough {
				yield(Entry{}, fmt.Errorf("scan: %w", err))
			}
			return
		}
	}
}

// errEnough ends a scan whose caller wants no more.
var errEnough = errors.New("the caller has enough")

// all is one attempt at All.
func (s *Store) all(ctx context.Context, yield func(Entry) bool) (err error) {
	k, err := s.openScan(ctx, nil, nil, true)
	if err != nil {
		return err
	}
	defer func() { k.close(err) }()
	return k.run(ctx, func() int { return scanGroup }, func(r *logRecord) error {
		e, ok, err := k.entry(r, false)
		if ok && !yield(e) {
			return errEnough
		}
		return err
	})
}

// keyScan is a scan that is being carried on.
type keyScan struct {
	cursor
	s       *Store
	given   bool // it goes on from a cursor
	prefix  []byte
	stop    record.Addr // the page ends here; 0: at the end only
	ended   bool        // there is nothing more
	whole   bool        // it goes on to its end at once
	all     bool        // what has expired is wanted too
	first   record.Addr // where it began, or went on
	cut     commitResult
	session *Session
	reader  *scanReader
	found   []logRecord // to be looked up; their images are the reader's
	standing
	room []byte // of entries to come
}

// openScan begins a scan, or goes on with one. whole is whether it will go on to
// its end at once.
func (s *Store) openScan(ctx context.Context, from, prefix []byte, whole bool) (*keyScan, error) {
	k := &keyScan{s: s, prefix: prefix, given: from != nil, whole: whole}
	if err := k.start(ctx, from); err != nil {
		return nil, err
	}
	k.first = k.at
	m := s.manifestUntil(k.end)
	var err error
	if k.reader, err = s.newScanReader(m.Spans, whole); err != nil {
		s.scans.end(k.id)
		return nil, err
	}
	k.session = s.NewSession()
	k.session.mover = true // for opNewest
	return k, nil
}

// start sets the cursor.
func (k *keyScan) start(ctx context.Context, from []byte) (err error) {
	s := k.s
	if from == nil {
		k.id = s.scans.begin()
		// Before the cut: what compaction takes away from below comes back above
		// it, and must not be missed.
		k.at = s.log.Begin()
		if k.cut, err = s.cutFor(ctx); err != nil {
			s.scans.end(k.id)
			return err
		}
		k.end = k.cut.end
		k.at = min(k.at, k.end)
		k.generation = s.generationAt(k.end)
		return nil
	}
	c, ok := s.decodeCursor(from)
	if !ok {
		return fmt.Errorf("%w: it is of no scan of this store", ErrCursor)
	}
	if c.end > s.log.Durable() || s.generationAt(c.end) != c.generation {
		return fmt.Errorf("%w: it is of another history of this store", ErrCursor)
	}
	if c.at < s.log.Begin() {
		s.scans.end(c.id)
		return fmt.Errorf("%w: compaction has passed it", ErrCursor)
	}
	k.cursor = c
	s.scans.move(k.id, k.at)
	return nil
}

// generationAt is the generation of the span that ends at, or holds, the address
// of a cut.
func (s *Store) generationAt(end record.Addr) (generation uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.mu.manifest.Spans {
		if span.Start < end {
			generation = span.Generation
		}
	}
	return generation
}

// cutFor makes a commit, and answers with the last there was if there is no room
// for one.
func (s *Store) cutFor(ctx context.Context) (r commitResult, err error) {
	answer := make(chan commitResult, 1)
	done := make(chan struct{})
	s.commit.ask(true, func(r commitResult) {
		answer <- r
		close(done)
	})
	if ctx.Done() == nil {
		s.opt.Runner.Wait(done)
		r = <-answer
	} else {
		select {
		case r = <-answer:
		case <-ctx.Done():
			return r, ctx.Err()
		}
	}
	if errors.Is(r.err, ErrDiskFull) || errors.Is(r.err, ErrReadOnly) {
		return commitResult{end: s.log.Durable()}, nil
	}
	return r, r.err
}

// close ends what is under way. After an error a scan with a cursor may be tried
// again from there.
func (k *keyScan) close(err error) {
	k.session.Close()
	k.reader.close()
	switch {
	case err == nil && !k.ended:
		k.s.scans.move(k.id, k.at)
	case err == nil || !k.given:
		k.s.scans.end(k.id)
	}
}

// next is the cursor for the next page, nil at the end.
func (k *keyScan) next() []byte {
	if k.ended {
		return nil
	}
	return k.encode(k.s)
}

// run goes on with the scan while more says that so many records are wanted, and
// calls each for every one that is live; its memory is valid during the call.
func (k *keyScan) run(ctx context.Context, more func() int, each func(*logRecord) error) error {
	for !k.ended && (k.stop == 0 || k.at < k.stop) {
		n := more()
		if n <= 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		// A page that fails may be asked for again.
		needed := k.first
		if k.whole {
			needed = k.at
		}
		k.s.scans.move(k.id, needed)
		if err := k.gather(min(n, scanGroup)); err != nil {
			return err
		}
		if err := k.lookUp(more, each); err != nil {
			return err
		}
	}
	return nil
}

// gather reads on until there are n records to be looked up, or what the reader has
// in memory ends.
func (k *keyScan) gather(n int) error {
	k.found = k.found[:0]
	var r logRecord
	ok, err := k.reader.next(k.at, &r)
	if err != nil {
		return err
	}
	if k.ended = !ok; !ok {
		return nil
	}
	for ok {
		k.at = r.next()
		if r.isUser() && record.KindOf(r.w1) != record.Tombstone && bytes.HasPrefix(r.key(), k.prefix) {
			k.found = append(k.found, r)
		}
		ok = len(k.found) < n && (k.stop == 0 || k.at < k.stop) && k.reader.here(k.at, &r)
	}
	return nil
}

// lookUp calls each for those of the gathered records that are live. If more says
// that there is enough, the scan goes on from the first that was not told.
func (k *keyScan) lookUp(more func() int, each func(*logRecord) error) error {
	if err := k.judge(k.session, k.found, k.end); err != nil {
		return err
	}
	now := k.s.clock.fresh()
	for i := range k.found {
		if k.stands[i] == superseded {
			continue
		}
		if k.found[i].expired(now) && !k.all {
			if k.stands[i] == newest {
				continue
			}
			if there, err := k.session.Exists(k.found[i].key()); err != nil || !there {
				if err != nil {
					return err
				}
				continue
			}
		}
		if more() <= 0 {
			k.at, k.ended = k.found[i].addr, false
			return nil
		}
		if err := each(&k.found[i]); err != nil {
			return err
		}
	}
	return nil
}

// entry makes an entry of a record. A large value may have been written anew by
// compaction, so it is read as it is now; ok is false if the key is gone.
func (k *keyScan) entry(r *logRecord, keysOnly bool) (e Entry, ok bool, err error) {
	if keysOnly {
		return Entry{Key: k.keep(r.key(), nil)}, true, nil
	}
	if record.KindOf(r.w1) == record.Big {
		e.Key = bytes.Clone(r.key())
		e.Value, err = k.session.Get(e.Key, nil)
		if errors.Is(err, ErrNotFound) {
			return Entry{}, false, nil
		}
		e.Value = bytes.Clone(e.Value)
		return e, err == nil, err
	}
	n := record.KeyLen(r.w0)
	b := k.keep(r.key(), r.value())
	return Entry{b[:n:n], b[n:]}, true, nil
}

// entryRoom is how many bytes of memory small entries share: one that is kept keeps
// no more than that.
const entryRoom = 4 << 10

// keep copies an entry into memory that will be the caller's.
func (k *keyScan) keep(key, value []byte) []byte {
	n := len(key) + len(value)
	if n > cap(k.room)-len(k.room) {
		if n > entryRoom/4 {
			return append(append(make([]byte, 0, n), key...), value...)
		}
		k.room = make([]byte, 0, entryRoom)
	}
	at := len(k.room)
	k.room = append(append(k.room, key...), value...)
	return k.room[at : at+n : at+n]
}

// Count is what LenExact has found.
type Count struct {
	Keys  int64
	Bytes int64 // of log that their records and chunks take
}

// LenExact counts the live keys by a scan, as of a cut at its beginning, and
// corrects the counters behind Len and Stats by what they were off then. It
// reads the whole log. ErrBusy: it is under way already.
func (s *Store) LenExact(ctx context.Context) (Count, error) {
	if !s.counting.TryLock() {
		return Count{}, fmt.Errorf("count keys: %w: it is under way already", ErrBusy)
	}
	defer s.counting.Unlock()
	for try := 1; ; try++ {
		n, err := s.countKeys(ctx)
		switch {
		case errors.Is(err, ErrCursor) && try < scanTries:
		case err != nil:
			return Count{}, fmt.Errorf("count keys: %w", err)
		default:
			return n, nil
		}
	}
}

// countKeys is one attempt at LenExact.
func (s *Store) countKeys(ctx context.Context) (n Count, err error) {
	k, err := s.openScan(ctx, nil, nil, true)
	if err != nil {
		return n, err
	}
	defer func() { k.close(err) }()
	k.all = true
	now := s.clock.fresh()
	// Of what has expired those are counted that the sweeper has yet to count out.
	var counted Count
	err = k.run(ctx, func() int { return scanGroup }, func(r *logRecord) error {
		if !r.expired(now) {
			n.Keys++
			n.Bytes += r.weight()
		}
		if !r.expired(k.cut.swept) {
			counted.Keys++
			counted.Bytes += r.weight()
		}
		return nil
	})
	if err == nil && k.cut.version != 0 {
		s.live.Add(counted.Keys - k.cut.keys)
		s.liveBytes.Add(counted.Bytes - k.cut.bytes)
		s.sweep.past.set(s.log.Begin(), k.cut.head, k.cut.swept)
	}
	return n, err
}
