package engine

import (
	"bytes"
	"context"
	"fmt"
	"iter"

	"rskv/engine/internal/record"
)

// A feed tells what has been changed by reading the log behind the commits:
//
//	               from                        durable       tail
//	| group | group | group | group | group ... |  (nothing)  |
//	                |-- changes --|
//	                              ^ commit: go on here
//
// A commit group is what lies between two commits. Of each key that was changed in
// it a feed tells the last state, once, in the order of the log; then the commit.
// So order between keys means something at commits only, and a feed that goes on
// where a commit has told misses nothing and is told nothing twice. What is not
// durable is not told, so no crash takes back what a feed has told.
//
// # Which record is the last of its key in a group
//
// A record that is superseded while it may be changed in place is marked as sealed,
// by the writer of the newer one, and both are in one group: what is older than a
// cut is not mutable. But in a group longer than what stays mutable behind the tail
// a record can be superseded that no writer may change any more:
//
//	|-- doubtful --|-- as much as always stays mutable --|
//	begin                                              cut
//
// Those are looked up, see newest.go. Where the group ends is found by reading
// ahead.
//
//	flag of the record   told
//	none                 yes; if it is doubtful, when nothing of the key follows
//	sealed               no: a newer one follows in this group
//	moved                no: compaction has copied it, no user has changed it
//	invalid              no: it was never part of a chain
//
// A record that compaction has copied and a user then changes in place loses the
// mark of the copy; and compaction does not put it on what a user has written in
// the same group, see Session.mark.
//
// # What it costs
//
// What a snapshot checkpoint has made durable is told with the commit behind it: until
// then it may be updated in place, see image.go.
//
// Writers do nothing for a feed, and never wait for one; the committer wakes it.
// Nothing is held for it: its buffer is the log, as long as that is there. When
// compaction has freed what it has not read, it is told: ErrCursor. A change that is
// in memory still costs about 40 ns: it is copied with its neighbours, and told from
// there.

// FeedOptions of Store.OpenFeed.
type FeedOptions struct {
	// Prefix is what the keys begin with whose changes are told.
	Prefix []byte
	// From is where to begin, a byte address: that of a commit that a feed has
	// told, or Stats.LogBegin for all that the log still has, where the first
	// group may lack its beginning. With Now it is not looked at.
	From int64
	// Now begins with what is written after the call of OpenFeed. For that a commit
	// is made; while the disk is full or the store read-only, the last one counts.
	Now bool
}

// ChangeKind says what a Change is.
type ChangeKind uint8

// The kinds of change.
const (
	ChangePut    ChangeKind = iota + 1 // Key has Value now
	ChangeDelete                       // Key is absent now
	ChangeCommit                       // all changes up to here were told
)

// Change is one step of a feed. Its bytes are valid until the next one is asked
// for.
type Change struct {
	Kind ChangeKind
	// Addr is the byte address of the change in the log, which rises from change to
	// change; of a ChangeCommit, where another feed goes on.
	Addr       int64
	Key, Value []byte
}

// Feed is a way through the changes of a store, in the order of its log. It is used
// by one goroutine at a time.
type Feed struct {
	s      *Store
	prefix []byte
	start  record.Addr
	at     record.Addr // of the next record
	end    record.Addr // durable when last looked
	told   record.Addr // last commit that was told
	count  int         // changes told since

	session *Session
	reader  *scanReader
	rec     logRecord   // the last that read has returned
	behind  bool        // the reader is one for much log, not for its end
	first   bool        // the next record is the first of its group
	cut     record.Addr // end of the present group, if it is long; else 0
	least   uint64      // pages behind the tail that were mutable when it was written
	value   []byte      // of large values

	// What lookUp has found and Next has not told yet, and its memory.
	found  []logRecord
	keep   []logRecord
	images []byte
	ops    []Op
	err    error // what has ended it
}

const (
	// feedBehind is how many pages behind the end of the log a feed takes the
	// memory for reading ahead.
	feedBehind = 4
	// feedTells is after how many bytes of log without a change a commit is told.
	feedTells = 16 << 20
	// feedLooks is after how many records Next looks whether it is still wanted.
	feedLooks = 1024
)

// OpenFeed returns a feed; Close ends it. ErrCursor: it cannot begin at From, since
// compaction has passed that or no commit of this store has ended there.
func (s *Store) OpenFeed(ctx context.Context, opt FeedOptions) (*Feed, error) {
	f := &Feed{s: s, prefix: bytes.Clone(opt.Prefix), first: true}
	if err := f.begin(ctx, &opt); err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	f.at, f.told = f.start, f.start
	f.end = max(f.start, s.log.Durable())
	f.session = s.NewSession()
	f.session.mover = true // for opNewest and opChunks
	return f, nil
}

// begin finds out where the feed starts.
func (f *Feed) begin(ctx context.Context, opt *FeedOptions) error {
	s := f.s
	if opt.Now {
		cut, err := s.cutFor(ctx)
		f.start = cut.end
		return err
	}
	f.start = record.Addr(opt.From / record.Unit)
	begin, durable := s.log.Begin(), s.log.Durable()
	switch {
	case opt.From < 0 || opt.From%record.Unit != 0:
		return fmt.Errorf("%w: 0x%x is no log address", ErrCursor, opt.From)
	case f.start < begin:
		return fmt.Errorf("%w: compaction has passed log address %v, the log begins at %v", ErrCursor, f.start, begin)
	case f.start > durable:
		return fmt.Errorf("%w: log address %v is beyond the last commit, which ends at %v", ErrCursor, f.start, durable)
	case f.start == begin:
		return nil
	}
	ok, err := s.groupEnds(f.start)
	if err == nil && !ok {
		err = fmt.Errorf("%w: no commit of this store ends at log address %v", ErrCursor, f.start)
	}
	return err
}

// groupEnds reports whether a commit group ends at a, above the log's begin. It
// walks along the page.
func (s *Store) groupEnds(a record.Addr) (ok bool, err error) {
	m := s.manifestUntil(s.log.Durable())
	for _, span := range m.Spans {
		if span.Start == a {
			return true, nil
		}
	}
	r, err := s.newTailReader(m.Spans)
	if err != nil {
		return false, err
	}
	defer r.close()
	at := (a - 1) &^ (record.Addr(s.opt.PageSize/record.Unit) - 1)
	for at < a {
		var l logRecord
		if ok, err := r.next(at, &l); err != nil || !ok || l.addr != at {
			return false, err
		}
		at = l.next()
		ok = l.isCommit() && !l.endsImage()
	}
	return ok && at == a, nil
}

// Start is the byte address at which the feed began.
func (f *Feed) Start() int64 { return f.start.Bytes() }

// Close ends the feed.
func (f *Feed) Close() {
	f.closeReader()
	f.session.Close()
}

func (f *Feed) closeReader() {
	if f.reader != nil {
		f.reader.close()
		f.reader = nil
	}
}

// More returns a channel that is closed when there may be more than Next has told,
// or the store is closed. Take it first, then call Next until it has nothing, then
// wait.
func (f *Feed) More() <-chan struct{} { return f.s.feeds.wait() }

// Next returns the next change; ok is false when there is none yet. It may wait for
// the disk, and read much where there is little for its prefix, but never waits for
// a commit. If ctx ends meanwhile, it returns ctx's error and may be called again;
// after any other error the feed has ended.
func (f *Feed) Next(ctx context.Context) (c Change, ok bool, err error) {
	if f.err == nil {
		if ok, err = f.next(ctx, &c); err == nil {
			return c, ok, nil
		}
		if err = fmt.Errorf("feed: %w", err); ctx.Err() != nil {
			return Change{}, false, err
		}
		f.err = err
	}
	return Change{}, false, f.err
}

func (f *Feed) next(ctx context.Context, c *Change) (ok bool, err error) {
	for n := 1; ; n++ {
		if f.s.closed.Load() {
			return false, ErrClosed
		}
		if n%feedLooks == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		if len(f.found) > 0 {
			r := &f.found[0]
			f.found = f.found[1:]
			return f.change(r, c)
		}
		r := &f.rec
		ok, err := f.read()
		switch {
		case err != nil:
			return false, err
		case !ok && f.look():
		case !ok:
			return f.caughtUp(c), nil
		case r.isCommit():
			f.at, f.first = r.next(), true
			if r.endsImage() {
				continue // what it covers may have been updated in place since
			}
			if f.count > 0 || (f.at-f.told).Bytes() >= feedTells {
				f.commit(c)
				return true, nil
			}
		case !f.wants(r):
			f.at = r.until()
		case f.doubtful(r.addr):
			if err := f.lookUp(); err != nil {
				return false, err
			}
		default:
			f.at = r.until()
			return f.change(r, c)
		}
	}
}

// wants reports whether a record may be a change to be told.
func (f *Feed) wants(r *logRecord) bool {
	return r.isUser() && r.w1&(record.Sealed|record.Moved) == 0 && bytes.HasPrefix(r.key(), f.prefix)
}

// doubtful reports whether a record at a could be superseded in its group without
// being marked.
func (f *Feed) doubtful(a record.Addr) bool { return f.cut != 0 && f.pages(a, f.cut) > f.least }

// pages is how many pages lie between that of a record and that of the last before
// the end of its group.
func (f *Feed) pages(a, end record.Addr) uint64 {
	size := int64(f.s.opt.PageSize)
	return uint64((end-1).Bytes()/size - a.Bytes()/size)
}

// lookUp goes over some of the records that are doubtful, and finds those that are
// the last of their key.
func (f *Feed) lookUp() error {
	f.ops, f.found, f.images = f.ops[:0], f.keep[:0], f.images[:0]
	for len(f.found) < scanGroup && len(f.images) < scanWindowMin {
		r := &f.rec
		ok, err := f.read()
		if err != nil {
			return err
		}
		if !ok || r.isCommit() || !f.doubtful(r.addr) {
			break
		}
		if f.at = r.until(); f.wants(r) {
			// Later records may be in another window.
			f.images = append(f.images, r.image...)
			f.found = append(f.found, *r)
		}
	}
	images := f.images
	for i := range f.found {
		r := &f.found[i]
		size := record.Size(r.w0, r.w1)
		r.image, images = images[:size], images[size:]
		f.ops = append(f.ops, Op{})
		f.ops[i].newestRecord(r.addr, f.cut, r.key())
		f.ops[i].Blind = true // copies of it are no changes
	}
	f.session.Do(f.ops)
	n := 0
	for i := range f.ops {
		if err := f.ops[i].Err; err != nil {
			return err
		}
		if f.ops[i].Found {
			f.found[n] = f.found[i]
			n++
		}
	}
	f.keep, f.found = f.found, f.found[:n]
	return nil
}

// look finds out whether more has become durable.
func (f *Feed) look() bool {
	durable := f.s.log.Durable()
	if durable <= f.end {
		return false
	}
	f.end = durable
	if f.reader != nil && !f.reader.extend(durable) {
		f.closeReader()
	}
	return true
}

// caughtUp tells the last commit, if that has not been done, and gives back what
// was taken to catch up.
func (f *Feed) caughtUp(c *Change) (ok bool) {
	if f.behind {
		f.behind = false
		f.closeReader()
	}
	if f.at <= f.told {
		return false
	}
	f.commit(c)
	return true
}

// commit tells that everything up to here was told.
func (f *Feed) commit(c *Change) {
	f.told, f.count = f.at, 0
	*c = Change{Kind: ChangeCommit, Addr: f.at.Bytes()}
}

// read makes rec the next record; ok is false at what was the end when last looked.
func (f *Feed) read() (ok bool, err error) {
	if f.at >= f.end {
		return false, nil
	}
	if f.reader != nil && !f.first && f.reader.here(f.at, &f.rec) {
		return true, nil
	}
	return f.readOn()
}

// readOn is read where more than a look into the reader's window may be needed.
func (f *Feed) readOn() (ok bool, err error) {
	s := f.s
	if f.reader == nil {
		m := s.manifestUntil(f.end)
		f.behind = (f.end - f.at).Bytes() > int64(feedBehind*s.opt.PageSize)
		if f.behind {
			f.reader, err = s.newScanReader(m.Spans, true)
		} else {
			f.reader, err = s.newTailReader(m.Spans)
		}
		if err != nil {
			return false, err
		}
	}
	ok, err = f.reader.next(f.at, &f.rec)
	if ok && f.first {
		f.first = false
		f.cut, err = f.longGroup(f.rec.addr)
	}
	return ok, err
}

// longGroup returns the end of the group that begins at a record if it is longer
// than what stays mutable behind the tail, else 0.
func (f *Feed) longGroup(begin record.Addr) (record.Addr, error) {
	s := f.s
	f.least = 1 // of any run of any store
	if begin >= s.spans[len(s.spans)-1].start {
		f.least = s.log.MutablePages()
	}
	if f.pages(begin, f.end) <= f.least {
		return 0, nil
	}
	ahead, err := s.newScanReader(s.manifestUntil(f.end).Spans, false)
	if err != nil {
		return 0, err
	}
	defer ahead.close()
	for at := begin; ; {
		var r logRecord
		ok, err := ahead.next(at, &r)
		if err != nil || !ok {
			return 0, err
		}
		if at = r.next(); !r.isCommit() {
			continue
		}
		if f.pages(begin, at) <= f.least {
			return 0, nil
		}
		return at, nil
	}
}

// change makes a change of a record.
func (f *Feed) change(r *logRecord, c *Change) (ok bool, err error) {
	f.count++
	c.Kind, c.Addr, c.Key = ChangePut, r.addr.Bytes(), r.key()
	switch record.KindOf(r.w1) {
	case record.Tombstone:
		c.Kind = ChangeDelete
	case record.Big:
		var op Op
		op.chunksOf(c.Key, r.value(), f.value[:0])
		if err = f.session.one(&op); err == nil {
			c.Value, f.value = op.Value, op.Value
		}
		if cap(f.value) > arenaKeep {
			f.value = nil
		}
	default:
		c.Value = r.value()
	}
	return err == nil, err
}

// Changes tells the changes until ctx ends, waiting for more when there are none.
// The second is the error that ended it, ctx's too: it comes with an empty change,
// as the last.
func (f *Feed) Changes(ctx context.Context) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for {
			more := f.More()
			for {
				c, ok, err := f.Next(ctx)
				if err == nil && ctx.Err() != nil {
					err = ctx.Err()
				}
				if err != nil {
					yield(Change{}, err)
					return
				}
				if !ok {
					break
				}
				if !yield(c, nil) {
					return
				}
			}
			if ctx.Done() == nil {
				f.s.opt.Runner.Wait(more)
				continue
			}
			select {
			case <-more:
			case <-ctx.Done():
			}
		}
	}
}
