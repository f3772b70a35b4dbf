package engine

import (
	"fmt"
	"sync"

	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// pageReader reads the pages of a stretch of the log ahead and hands them out in
// order; they may be given back in any.
//
//	       given back | handed out | arrived | asked for |
//	log    -----------+------------+---------+-----------+--------------->
//	                  at most as many as there is memory for
//
// It may be used by several goroutines.
type pageReader struct {
	s     *Store
	spans []manifest.Span // closed
	page  record.Addr     // units of one
	wake  func()          // a page has arrived

	mu sync.Mutex
	// All below is guarded by mu.
	at    record.Addr // next record border to be handed out
	asked record.Addr // next page to be asked for
	until record.Addr
	slots []readPage
	out   int // pages handed out and not given back
	over  bool
}

// readPage is a page in memory, or on its way there.
type readPage struct {
	ioring.Op
	span  manifest.Span
	from  record.Addr   // first record that counts
	done  chan struct{} // closed when the read has answered; nil: free
	taken bool          // handed out
}

// newPageReader returns a reader of the closed spans of m between two addresses, the
// second a page border. memory holds whole pages.
func (s *Store) newPageReader(m *manifest.Manifest, from, until record.Addr, memory []byte, wake func()) *pageReader {
	r := &pageReader{s: s, spans: m.Spans, until: until, at: from, wake: wake, page: record.Addr(s.opt.PageSize / record.Unit)}
	r.asked = from &^ (r.page - 1)
	for len(memory) >= s.opt.PageSize {
		p := readPage{}
		p.Kind, p.Buf = ioring.Read, memory[:s.opt.PageSize:s.opt.PageSize]
		r.slots = append(r.slots, p)
		memory = memory[s.opt.PageSize:]
	}
	return r
}

// next hands out a page; nil if the next one has not arrived. end says that there
// are no more. The caller gives it back by release.
func (r *pageReader) next() (p *readPage, end bool, err error) {
	ops := r.ahead()
	if len(ops) > 0 {
		r.s.dev.Submit(ops)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.spans) > 0 && r.at >= r.spans[0].End {
		r.spans = r.spans[1:]
	}
	if len(r.spans) == 0 || r.at >= r.until {
		return nil, true, nil
	}
	span := r.spans[0]
	r.at = max(r.at, span.Start)
	p = r.slot(r.at)
	if p.done == nil || p.taken {
		return nil, false, nil // an older page is still in its place
	}
	select {
	case <-p.done:
	default:
		return nil, false, nil
	}
	if p.Err != nil {
		return nil, false, fmt.Errorf("%w: read of log page %v: %w", ErrIO, r.at, p.Err)
	}
	p.taken, p.span, p.from = true, span, r.at
	r.out++
	r.at = r.at&^(r.page-1) + r.page
	return p, false, nil
}

func (r *pageReader) slot(a record.Addr) *readPage { return &r.slots[int(a/r.page)%len(r.slots)] }

// release gives a page back.
func (r *pageReader) release(p *readPage) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.done, p.taken = nil, false
	r.out--
}

// outstanding is how many pages have been handed out and not given back.
func (r *pageReader) outstanding() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out
}

// position is where the next page begins.
func (r *pageReader) position() record.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at
}

// handedOut reports whether there are no more pages.
func (r *pageReader) handedOut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.spans) == 0 || r.at >= r.until || r.at >= r.spans[len(r.spans)-1].End
}

// cut makes the stretch end where the next page would begin.
func (r *pageReader) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.until = min(r.until, r.at)
}

// end is where the stretch ends.
func (r *pageReader) end() record.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.until
}

// ahead prepares the reads of pages as long as there is a place.
func (r *pageReader) ahead() (ops []*ioring.Op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.asked = max(r.asked, r.at&^(r.page-1)); r.asked < r.until && !r.over; r.asked += r.page {
		p := r.slot(r.asked)
		if p.done != nil {
			break
		}
		done := make(chan struct{})
		p.done, p.Off, p.N, p.Err = done, r.asked.Bytes(), 0, nil
		p.Done = func(*ioring.Op) {
			close(done)
			r.wake()
		}
		ops = append(ops, &p.Op)
	}
	return ops
}

// close waits for reads under way, and asks for no others. Nobody has a page any more.
func (r *pageReader) close() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	for i := range r.slots {
		if d := r.slots[i].done; d != nil {
			r.s.opt.Runner.Wait(d)
		}
	}
}
