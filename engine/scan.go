package engine

import (
	"errors"
	"fmt"

	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// readAhead is how many pages are read ahead of a scan.
const readAhead = 4

// errLogEnd ends a scan: the next bytes are not a record of this span.
var errLogEnd = errors.New("end of the log")

// scan reads the records of one span from the device, in order, verified.
type scan struct {
	s        *Store
	span     manifest.Span
	seed     record.Seed
	pageSize int64
	at       record.Addr // of the next record
	why      error       // why the scan ended
	memory   *ioring.Memory
	pages    [readAhead]scanPage
	asked    int64 // byte address of the next page to be asked for
}

type scanPage struct {
	ioring.Op
	done chan struct{}
}

// newScan scans a span from a record border on, or from its start if that is
// higher.
func (s *Store) newScan(m *manifest.Manifest, span manifest.Span, from record.Addr) *scan {
	r := &scan{
		s: s, span: span, seed: record.NewSeed(m.StoreID, span.Generation),
		pageSize: int64(1) << m.PageBits, at: max(span.Start, from),
	}
	r.asked = r.at.Bytes() &^ (r.pageSize - 1)
	return r
}

// ask starts reading the next page.
func (r *scan) ask() error {
	if r.memory == nil {
		var err error
		if r.memory, err = ioring.AllocMemory(readAhead * r.pageSize); err != nil {
			return fmt.Errorf("replay: %w", err)
		}
	}
	i := r.asked / r.pageSize % readAhead
	p := &r.pages[i]
	if p.done != nil {
		r.s.opt.Runner.Wait(p.done) // a page that was skipped may still be on its way
	}
	done := make(chan struct{})
	p.done = done
	p.Kind, p.Off = ioring.Read, r.asked
	p.Buf = r.memory.Bytes()[i*r.pageSize : (i+1)*r.pageSize]
	p.N, p.Err = 0, nil
	p.Done = func(*ioring.Op) { close(done) }
	r.asked += r.pageSize
	r.s.dev.Submit([]*ioring.Op{&p.Op})
	return nil
}

// close waits for reads under way and frees their memory.
func (r *scan) close() {
	for i := range r.pages {
		if d := r.pages[i].done; d != nil {
			r.s.opt.Runner.Wait(d)
		}
	}
	if r.memory != nil {
		// Recovery goes on without this memory in any case.
		_ = r.memory.Free()
	}
}

// page returns the bytes of the page that begins at byte address off.
func (r *scan) page(off int64) ([]byte, error) {
	r.asked = max(r.asked, off)
	for r.asked < off+readAhead*r.pageSize && r.asked < max(r.limit(), off+r.pageSize) {
		if err := r.ask(); err != nil {
			return nil, err
		}
	}
	p := &r.pages[off/r.pageSize%readAhead]
	r.s.opt.Runner.Wait(p.done)
	if p.Err != nil {
		if errors.Is(p.Err, ioring.ErrNoSegment) {
			r.why = p.Err
			return nil, errLogEnd
		}
		return nil, fmt.Errorf("%w: read of log page 0x%x: %w", ErrIO, off, p.Err)
	}
	return p.Buf, nil
}

// limit is the byte address up to which reading ahead makes sense.
func (r *scan) limit() int64 {
	if r.span.End != 0 {
		return r.span.End.Bytes()
	}
	_, end := r.s.dev.Extent()
	return end
}

// next returns the next record: its address, words, and the bytes behind its
// header, valid until the next call. Fillers and page headers are returned too.
func (r *scan) next() (a record.Addr, w0, w1 uint64, body []byte, err error) {
	a = r.at
	off := a.Bytes() & (r.pageSize - 1)
	page, err := r.page(a.Bytes() - off)
	if err != nil {
		return a, 0, 0, nil, err
	}
	w0, w1, ok := record.Verify(page[off:], r.seed, a)
	switch {
	case !ok:
		r.why = errChecksum
		return a, 0, 0, nil, errLogEnd
	case off == 0 && (record.KindOf(w1) != record.System || record.KeyLen(w0) != record.TypePage):
		r.why = errors.New("no page header")
		return a, 0, 0, nil, errLogEnd
	}
	size := int64(record.Size(w0, w1))
	r.at = a + record.Addr(size/record.Unit)
	if isCommit(w0, w1) {
		r.at = sectorEnd(r.at) // what is between is padding, whole or not
	}
	return a, w0, w1, page[off+record.HeaderSize : off+size], nil
}

// lastCommit goes on to the end of the log, and returns the end of the last
// commit group on the way, or end, and the highest address a commit record on
// the way says is durable.
func (r *scan) lastCommit(end record.Addr) (_, durable record.Addr, _ error) {
	for {
		a, w0, w1, body, err := r.next()
		if err != nil {
			return end, durable, err
		}
		if isCommit(w0, w1) {
			c, err := decodeCommit(body, r.span.Generation)
			if err != nil {
				return end, durable, corrupt("commit record", a, err)
			}
			end = sectorEnd(a + record.Addr(record.Size(w0, w1)/record.Unit))
			durable = max(durable, c.durable)
		}
	}
}

// attested looks for commit records behind the place where the scan ended, and
// returns the highest address one of them says is durable. Records can be found
// again at every sector border at which a group begins, and at every page.
func (r *scan) attested() (highest record.Addr, err error) {
	for at := sectorEnd(r.at + 1); at.Bytes() < r.limit(); at = sectorEnd(r.at + 1) {
		r.at = at
		_, durable, err := r.lastCommit(at)
		if !errors.Is(err, errLogEnd) {
			return 0, err
		}
		highest = max(highest, durable)
		r.at = max(r.at, at)
	}
	return highest, nil
}
