package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// A scrub reads the committed log of a running store back from the device, page
// by page, at a limited rate, so that damage is found while the newest backup is
// still older than it:
//
//	next page due --> read under way --> verified --> next page due
//
// Like every other background work it is a task of the Runner; it takes one page
// of memory besides the budget.

// ScrubRateDefault is how many bytes a second a scrub reads unless told
// otherwise: little beside what a disk can do, yet 5 TB in a day.
const ScrubRateDefault = 64 << 20

// ScrubOptions of Store.Scrub.
type ScrubOptions struct {
	// BytesPerSecond limits the rate: 0 is ScrubRateDefault, negative no limit.
	BytesPerSecond int64
	// Progress is told, if set, how many bytes have been read, of how many.
	Progress func(done, total int64)
}

// ScrubResult is what a scrub found, up to its end or to where it was stopped.
type ScrubResult struct {
	Bytes        int64 // of log read
	Records      uint64
	Damages      int   // stretches reported
	DamagedBytes int64 // in them
	Until        int64 // byte address up to which the log was durable at the start
}

// scrub is one scrub. Its fields belong to the task's step.
type scrub struct {
	s      *Store
	opt    ScrubOptions
	report func(Damage)
	task   taskRef
	done   chan struct{} // closed when there is nothing left to do

	spans  []manifest.Span // what is left to read, all closed
	at     record.Addr     // next in spans[0]
	total  int64
	due    int64 // clock: the next page is not read before
	began  int64 // clock
	memory *ioring.Memory
	read   ioring.Op
	answer chan struct{} // closed when the read has answered; nil: none under way

	res ScrubResult
	err error
}

// Scrub verifies every record of the log that is durable when it begins, on the
// device, and reports every stretch that is damaged; nothing is repaired. report
// runs on a goroutine of the engine and may be nil. If ctx ends first, Scrub
// returns what it has found so far and the context's error.
func (s *Store) Scrub(ctx context.Context, opt ScrubOptions, report func(Damage)) (ScrubResult, error) {
	def(&opt.BytesPerSecond, ScrubRateDefault)
	if s.closed.Load() {
		return ScrubResult{}, ErrClosed
	}
	memory, err := ioring.AllocMemory(int64(s.opt.PageSize))
	if err != nil {
		return ScrubResult{}, fmt.Errorf("scrub: %w", err)
	}
	until := s.log.Durable()
	c := &scrub{
		s: s, opt: opt, report: report, done: make(chan struct{}), memory: memory,
		at: s.log.Begin(), began: s.opt.Clock.Monotonic(),
	}
	c.spans = s.manifestUntil(until).Spans
	c.total, c.res.Until = spannedBytes(c.spans, c.at), until.Bytes()
	c.read.Kind = ioring.Read
	c.task.set(s.opt.Runner.Start("scrub", c.step))
	if ctx.Done() == nil {
		s.opt.Runner.Wait(c.done)
	} else {
		select {
		case <-c.done:
		case <-ctx.Done():
		}
	}
	c.task.Stop()
	if c.answer != nil {
		s.opt.Runner.Wait(c.answer)
	}
	err = errors.Join(c.err, memory.Free())
	if err == nil && len(c.spans) > 0 {
		return c.res, ctx.Err()
	}
	if err != nil {
		err = fmt.Errorf("scrub: %w", err)
	}
	return c.res, err
}

// manifestUntil is the manifest of the store as it would be if its log ended at
// until, which is the end of a commit group.
func (s *Store) manifestUntil(until record.Addr) *manifest.Manifest {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := *s.mu.manifest
	m.Begin = s.log.Begin()
	m.Spans = slices.Clone(m.Spans)
	for len(m.Spans) > 0 && m.Spans[len(m.Spans)-1].Start >= until {
		m.Spans = m.Spans[:len(m.Spans)-1]
	}
	if n := len(m.Spans); n > 0 && (m.Spans[n-1].End == 0 || m.Spans[n-1].End > until) {
		m.Spans[n-1].End = until
	}
	return &m
}

// spannedBytes is how many bytes of log lie in closed spans from an address on.
func spannedBytes(spans []manifest.Span, from record.Addr) (n int64) {
	for _, span := range spans {
		n += max(0, int64(span.End)-int64(max(span.Start, from))) * record.Unit
	}
	return n
}

// step is one step of the scrub: it asks for a page, or verifies the one that
// has arrived and says how long to wait for the next.
func (c *scrub) step() time.Duration {
	if !c.task.ready() {
		return time.Millisecond // Scrub is still starting the task
	}
	if c.answer == nil {
		// A read whose answer was seen before its wake-up wakes the task early.
		if early := c.due - c.s.opt.Clock.Monotonic(); early > 0 {
			return time.Duration(early)
		}
		if !c.ask() {
			return -1
		}
	}
	select {
	case <-c.answer:
	default:
		return -1
	}
	c.answer = nil
	if err := c.verify(); err != nil {
		c.err, c.spans = err, nil
		c.end()
		return -1
	}
	if c.opt.Progress != nil {
		c.opt.Progress(c.res.Bytes, c.total)
	}
	if c.opt.BytesPerSecond < 0 {
		return 0
	}
	c.due = c.began + int64(float64(c.res.Bytes)/float64(c.opt.BytesPerSecond)*1e9)
	return time.Duration(max(0, c.due-c.s.opt.Clock.Monotonic()))
}

// end lets Scrub return.
func (c *scrub) end() {
	select {
	case <-c.done:
	default:
		close(c.done)
	}
}

// ask starts to read the next page, or a part of it; false: there is none.
func (c *scrub) ask() bool {
	for len(c.spans) > 0 && max(c.at, c.spans[0].Start) >= c.spans[0].End {
		c.spans = c.spans[1:]
	}
	if len(c.spans) == 0 {
		c.end()
		return false
	}
	c.at = max(c.at, c.spans[0].Start)
	base, stop := c.page()
	answer := make(chan struct{})
	c.answer = answer
	c.read.Off, c.read.Buf = base.Bytes(), c.memory.Bytes()[:(stop-base)*record.Unit]
	c.read.N, c.read.Err = 0, nil
	c.read.Done = func(*ioring.Op) {
		close(answer)
		c.task.Wake()
	}
	c.s.dev.Submit([]*ioring.Op{&c.read})
	return true
}

// page is the page that holds the next address, up to where its span ends.
func (c *scrub) page() (base, stop record.Addr) {
	units := record.Addr(c.s.opt.PageSize / record.Unit)
	base = c.at &^ (units - 1)
	return base, min(base+units, c.spans[0].End)
}

// verify checks the page that was read, and moves on.
func (c *scrub) verify() error {
	base, stop := c.page()
	from := c.at
	c.at = stop
	c.res.Bytes += int64(stop-from) * record.Unit
	switch err := c.read.Err; {
	case err == nil:
	case errors.Is(err, ioring.ErrClosed):
		return ErrClosed
	case stop <= c.s.log.Begin():
		return nil // it has been given up meanwhile
	default:
		return c.damaged(from, stop, err)
	}
	join := stretch{segment: record.Addr(c.s.opt.SegmentSize / record.Unit), tell: c.damaged}
	check := pageCheck{seed: c.s.seedAt(from), damaged: join.add}
	check.record = func(*logRecord) error {
		c.res.Records++
		return join.end()
	}
	if err := check.run(c.read.Buf, base, from, stop); err != nil {
		return err
	}
	return join.end()
}

func (c *scrub) damaged(from, until record.Addr, why error) error {
	c.res.Damages++
	c.res.DamagedBytes += int64(until-from) * record.Unit
	if c.report != nil {
		c.report(Damage{segmentFile(c.s.opt.SegmentSize, from.Bytes()), from.Bytes(), until.Bytes(), why})
	}
	return nil
}
