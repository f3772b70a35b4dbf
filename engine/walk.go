package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// Whoever reads a log that may be damaged reads it page by page and goes on
// behind what does not verify:
//
//	page    | header | rec | rec |#####damaged#####| rec | rec | filler |
//	                             ^                 ^
//	                             first record that |
//	                             does not verify   next place where one does
//
// Records follow each other without gaps, so the first that does not verify
// hides where the next begins. Its length is not believed: it may be what is
// damaged, and would jump over sound records. Every 16-byte unit behind it is
// tried instead. What verifies there by chance, once in 2^31 tries, must also
// look like a record: its link to an older one points back, its type and its
// unused bits are right. Together that leaves less than one wrong find in 10^9
// damaged pages.

// errNoHeader: a page does not begin as pages do.
var errNoHeader = errors.New("no page header")

// errRecordLength: a record does not end where it must.
var errRecordLength = errors.New("record is longer than its page")

// logRecord is a record that verified. Its image is valid during the call.
type logRecord struct {
	addr   record.Addr
	w0, w1 uint64
	image  []byte // the whole record
}

// isUser reports whether the record is a version of a key.
func (r *logRecord) isUser() bool {
	return record.KindOf(r.w1) != record.System && r.w1&record.Invalid == 0
}

// expiry is the record's, in ms since 1970; 0: none.
func (r *logRecord) expiry() int64 { return record.ExpiryOf(r.image, r.w0, r.w1) }

// weight is how many bytes of log the record takes, with its chunks.
func (r *logRecord) weight() int64 {
	n := int64(len(r.image))
	if record.KindOf(r.w1) == record.Big {
		n += bigBytes(r.value(), record.KeyLen(r.w0))
	}
	return n
}

// expired reports whether the record has expired at a time, in ms since 1970.
func (r *logRecord) expired(now int64) bool {
	e := r.expiry()
	return e != 0 && e <= now
}

func (r *logRecord) isCommit() bool { return isCommit(r.w0, r.w1) }

// endsImage reports whether the record, a commit, was cut for an image.
func (r *logRecord) endsImage() bool {
	return bytes.HasPrefix(r.image[record.HeaderSize:], []byte(commitImage))
}

func (r *logRecord) key() []byte   { return record.Key(r.image, r.w0) }
func (r *logRecord) value() []byte { return record.ValueOf(r.image, r.w0, r.w1) }

// until is the address behind the record.
func (r *logRecord) until() record.Addr {
	return r.addr + record.Addr(len(r.image)/record.Unit)
}

// next is where the next record begins: between a commit record and the sector's
// end is padding, whole or not.
func (r *logRecord) next() record.Addr {
	if r.isCommit() {
		return sectorEnd(r.until())
	}
	return r.until()
}

// pageCheck verifies the records of pages of one span.
type pageCheck struct {
	seed   record.Seed
	record func(r *logRecord) error
	// damaged is told each stretch of a page that does not verify.
	damaged func(from, until record.Addr, why error) error
}

// run goes through the records of [from, until) in a page that begins at base;
// bytes are those of [base, until). from is a record border.
func (c *pageCheck) run(bytes []byte, base, from, until record.Addr) error {
	var r logRecord
	for at := from; at < until; {
		why := c.verify(&r, bytes, base, at)
		if why == nil {
			if err := c.record(&r); err != nil {
				return err
			}
			at = r.next()
			continue
		}
		next := at + 1
		for next < until && !(c.plausible(bytes, base, next) && c.verify(&r, bytes, base, next) == nil) {
			next++
		}
		if err := c.damaged(at, next, why); err != nil {
			return err
		}
		at = next
	}
	return nil
}

// verify takes the record at a, or says what is wrong with it.
func (c *pageCheck) verify(r *logRecord, bytes []byte, base, a record.Addr) error {
	buf := bytes[(a-base)*record.Unit:]
	w0, w1 := record.Words(buf)
	size := record.Size(w0, w1)
	if size > len(buf) {
		return errRecordLength
	}
	if _, _, ok := record.Verify(buf[:size], c.seed, a); !ok {
		return errChecksum
	}
	isPage := record.KindOf(w1) == record.System && record.KeyLen(w0) == record.TypePage
	if isPage != (a == base) {
		return errNoHeader
	}
	*r = logRecord{addr: a, w0: w0, w1: w1, image: buf[:size]}
	return nil
}

// plausible reports whether the words at a could be a record's.
func (c *pageCheck) plausible(bytes []byte, base, a record.Addr) bool {
	w0, w1 := record.Words(bytes[(a-base)*record.Unit:])
	switch {
	case w1>>63 != 0 || record.Prev(w0) >= a:
		return false
	case record.KindOf(w1) == record.System:
		return record.KeyLen(w0) <= record.TypeCommit
	}
	return record.KeyLen(w0) > 0
}

// logWalk reads stretches of a log, one page in memory at a time.
type logWalk struct {
	src      source
	m        *manifest.Manifest
	pageSize int64
	memory   *ioring.Memory // one page, and one chunk behind it
	// told of every page before it is read, if not nil: bytes of log, or the
	// error that ends the walk.
	step func(n int64) error
}

// newWalk returns a walk over the log of a store; close frees its memory.
func newWalk(src source, m *manifest.Manifest) (*logWalk, error) {
	w := &logWalk{src: src, m: m, pageSize: 1 << m.PageBits}
	var err error
	if w.memory, err = ioring.AllocMemory(w.pageSize + chunkRoom); err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	return w, nil
}

func (w *logWalk) close() { _ = w.memory.Free() }

// load reads [base, until) of the page that begins at base. Sectors that cannot
// be read are zeros, and why says so; err: there is nothing at all.
func (w *logWalk) load(base, until record.Addr) (bytes []byte, why, err error) {
	bytes = w.memory.Bytes()[:(until-base)*record.Unit]
	err = w.src.read(bytes, base.Bytes())
	if err == nil || errors.Is(err, ioring.ErrNoSegment) || errors.Is(err, ioring.ErrClosed) {
		return bytes, nil, err
	}
	why = err
	for off := 0; off < len(bytes); off += sectorBytes {
		part := bytes[off:min(off+sectorBytes, len(bytes))]
		if err := w.src.read(part, base.Bytes()+int64(off)); err != nil {
			clear(part)
		}
	}
	return bytes, why, nil
}

// sectorBytes is the unit in which a page that cannot be read is tried again:
// the strictest alignment a device asks for.
const sectorBytes = 4096

// walk goes through the records of [from, until) in a span; from is a record
// border. Stretches of damage that touch are told as one, but never across a
// segment border.
func (w *logWalk) walk(span manifest.Span, from, until record.Addr, visit func(*logRecord) error, damaged func(from, until record.Addr, why error) error) error {
	join := stretch{segment: record.Addr(1) << (w.m.SegmentBits - 4), tell: damaged}
	check := pageCheck{seed: record.NewSeed(w.m.StoreID, span.Generation), damaged: join.add}
	check.record = func(r *logRecord) error {
		if err := join.end(); err != nil {
			return err
		}
		return visit(r)
	}
	pageUnits := record.Addr(w.pageSize / record.Unit)
	for at := max(from, span.Start); at < until; {
		base := at &^ (pageUnits - 1)
		stop := min(base+pageUnits, until)
		if w.step != nil {
			if err := w.step(int64(stop-at) * record.Unit); err != nil {
				return err
			}
		}
		bytes, why, err := w.load(base, stop)
		told := join.told
		if err == nil {
			join.why = why
			err = check.run(bytes, base, at, stop)
			if err == nil && why != nil && join.told == told {
				err = join.add(at, stop, why) // what could not be read was padding
			}
		} else if errors.Is(err, ioring.ErrNoSegment) {
			err = join.add(at, stop, ioring.ErrNoSegment)
		}
		if err != nil {
			return err
		}
		at = stop
	}
	return join.end()
}

// stretch joins damage that touches.
type stretch struct {
	segment     record.Addr // units of a segment
	tell        func(from, until record.Addr, why error) error
	why         error // what reading the page met, if anything
	from, until record.Addr
	first       error // what was wrong where it begins
	told        int   // calls of add
}

func (s *stretch) add(from, until record.Addr, why error) error {
	s.told++
	if s.why != nil {
		why = s.why
	}
	if s.first != nil && s.until == from && s.from/s.segment == from/s.segment {
		s.until = until
		return nil
	}
	err := s.end()
	s.from, s.until, s.first = from, until, why
	return err
}

func (s *stretch) end() error {
	if s.first == nil {
		return nil
	}
	why := s.first
	s.first = nil
	return s.tell(s.from, s.until, why)
}

// settle finds where the committed log ends in a span that is open, looking from
// a record border that is known to be committed. That is the highest of
//
//   - the end of a commit group whose every record verifies,
//   - what a commit record says was durable when it was cut,
//   - from, which a checkpoint vouches for.
//
// What does not verify below it is damage; above it is a torn tail, which nobody
// was promised. seen is where the last record ends that verifies.
func (w *logWalk) settle(span manifest.Span, from record.Addr) (end, seen record.Addr, err error) {
	end, seen = from, from
	var bad record.Addr // end of the last damage
	_, limit := w.src.extent()
	visit := func(r *logRecord) error {
		seen = r.until()
		if !r.isCommit() {
			return nil
		}
		c, err := decodeCommit(r.image[record.HeaderSize:], span.Generation)
		if err != nil {
			return nil // it is told as damage if it counts
		}
		end = max(end, c.durable)
		if bad <= c.durable && !c.imaged {
			end = max(end, sectorEnd(r.until()))
		}
		return nil
	}
	damaged := func(_, until record.Addr, _ error) error {
		bad = until
		return nil
	}
	err = w.walk(span, from, record.Addr(limit/record.Unit), visit, damaged)
	return end, max(seen, end), err
}

const (
	// chunkRoom holds the sectors that a chunk record touches.
	chunkRoom = chunkBytes + MaxKey + 4*sectorBytes
)

// chunk reads a chunk with n bytes of the value of key; what it returns is valid until the next call.
func (w *logWalk) chunk(a record.Addr, n int, key []byte) ([]byte, error) {
	size := record.SystemSize(chunkPayload(n, key))
	span, ok := w.m.SpanOf(a)
	inPage := a.Bytes() & (w.pageSize - 1)
	if !ok || a < w.m.Begin || inPage+int64(size) > w.pageSize {
		return nil, errChunkList
	}
	from := a.Bytes() &^ (sectorBytes - 1)
	until := (a.Bytes() + int64(size) + sectorBytes - 1) &^ (sectorBytes - 1)
	buf := w.memory.Bytes()[w.pageSize:][:until-from]
	if err := w.src.read(buf, from); err != nil {
		return nil, err
	}
	image := buf[a.Bytes()-from:][:size]
	w0, w1 := record.Words(image)
	switch _, _, ok := record.Verify(image, record.NewSeed(w.m.StoreID, span.Generation), a); {
	case !ok:
		return nil, errChecksum
	case !isChunk(w0, w1, n, key):
		return nil, errChunkList
	}
	return image[record.HeaderSize:][:n], nil
}

// chunkList decodes the content of a Big record.
func chunkList(list []byte) (total int, chunks []record.Addr, err error) {
	if len(list) >= 8 {
		total = int(binary.LittleEndian.Uint64(list))
	}
	n := (total + chunkBytes - 1) / chunkBytes
	if total <= 0 || total > MaxValueDefault || len(list) != 8+8*n {
		return 0, nil, errChunkList
	}
	for i := range n {
		chunks = append(chunks, record.Addr(binary.LittleEndian.Uint64(list[8+8*i:])))
	}
	return total, chunks, nil
}
