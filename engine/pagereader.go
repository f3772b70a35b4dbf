package engine

import (
	"fmt"

	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// pageReader reads the pages of a stretch of the log in order, one ahead.
type pageReader struct {
	s      *Store
	spans  []manifest.Span
	until  record.Addr
	at     record.Addr // next record border to be handed out
	asked  record.Addr // next page to be asked for
	memory *ioring.Memory
	slots  [2]pageSlot
	wake   func()
}

type pageSlot struct {
	ioring.Op
	done chan struct{} // closed when the read has answered; nil: free
}

// newPageReader returns a reader of the closed spans of m between two addresses.
// wake is called when a page has arrived.
func (s *Store) newPageReader(m *manifest.Manifest, from, until record.Addr, wake func()) (*pageReader, error) {
	r := &pageReader{s: s, spans: m.Spans, until: until, at: from, wake: wake}
	var err error
	if r.memory, err = ioring.AllocMemory(int64(len(r.slots) * s.opt.PageSize)); err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	r.asked = from &^ r.mask()
	return r, nil
}

// mask is the units of a page less one.
func (r *pageReader) mask() record.Addr { return record.Addr(r.s.opt.PageSize/record.Unit) - 1 }

func (r *pageReader) slot(a record.Addr) *pageSlot {
	return &r.slots[a.Bytes()/int64(r.s.opt.PageSize)%int64(len(r.slots))]
}

// next returns the next page and the first of its records; ready is false while
// it is being read, and at the end there is no page. release gives it back.
func (r *pageReader) next() (page []byte, span manifest.Span, from record.Addr, ready bool, err error) {
	for len(r.spans) > 0 && r.at >= r.spans[0].End {
		r.spans = r.spans[1:]
	}
	if len(r.spans) == 0 || r.at >= r.until {
		return nil, span, 0, true, nil
	}
	span = r.spans[0]
	r.at = max(r.at, span.Start)
	r.ahead()
	slot := r.slot(r.at)
	select {
	case <-slot.done:
	default:
		return nil, span, 0, false, nil
	}
	if slot.Err != nil {
		return nil, span, 0, true, fmt.Errorf("%w: read of log page %v: %w", ErrIO, r.at, slot.Err)
	}
	return slot.Buf, span, r.at, true, nil
}

// release gives the page back that next returned last, and goes on to the one
// behind it.
func (r *pageReader) release() {
	r.slot(r.at).done = nil
	r.at = (r.at | r.mask()) + 1
}

// ahead asks for pages as long as there is a slot.
func (r *pageReader) ahead() {
	for r.asked = max(r.asked, r.at&^r.mask()); r.asked < r.until; r.asked += r.mask() + 1 {
		slot := r.slot(r.asked)
		if slot.done != nil {
			return
		}
		i := r.asked.Bytes() / int64(r.s.opt.PageSize) % int64(len(r.slots))
		done := make(chan struct{})
		size := int64(r.s.opt.PageSize)
		*slot = pageSlot{done: done, Op: ioring.Op{Kind: ioring.Read, Off: r.asked.Bytes(), Buf: r.memory.Bytes()[i*size : (i+1)*size], Done: func(*ioring.Op) {
			close(done)
			r.wake()
		}}}
		r.s.dev.Submit([]*ioring.Op{&slot.Op})
	}
}

// close waits for reads under way and frees the memory.
func (r *pageReader) close() error {
	for i := range r.slots {
		if d := r.slots[i].done; d != nil {
			r.s.opt.Runner.Wait(d)
		}
	}
	return r.memory.Free()
}
