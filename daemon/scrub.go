package daemon

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"rskv/engine"
	"rskv/ipc"
)

// scrubTold is how many damaged stretches are told of by place. Where there are
// more, it is the disk that has to be looked at.
const scrubTold = 100

// scrubber runs scrubs of the store, one at a time: asked for by clients, or
// every scrub_interval.
type scrubber struct {
	settings func() *Config
	log      *slog.Logger
	look     chan struct{} // capacity 1: settings have changed, or a scrub has ended

	mu struct {
		sync.Mutex
		store  *engine.Store      // nil: none is to begin
		cancel context.CancelFunc // ends the one that runs; nil: none does
		ended  chan struct{}      // closed when it has ended
		run    scrubRun           // it, or the last
		scrubs uint64             // that came to their end
		clean  time.Time          // when the last that found nothing came to its end
	}
}

// scrubRun is one scrub. Guarded by scrubber.mu.
type scrubRun struct {
	begun, ended time.Time
	rate         int64 // bytes a second; 0: no limit
	done, total  int64
	records      uint64
	damages      int
	damagedBytes int64
	found        []engine.Damage // the first of them
	err          error
}

// state is the run's name on the wire.
func (r *scrubRun) state() string {
	switch {
	case r.begun.IsZero():
		return "never"
	case r.ended.IsZero():
		return "running"
	case errors.Is(r.err, context.Canceled):
		return "stopped"
	case r.err != nil:
		return "failed"
	}
	return "done"
}

// open makes scrubs of the store possible, and begins those that are due, until
// ctx ends.
func (s *scrubber) open(ctx context.Context, store *engine.Store) {
	s.mu.Lock()
	s.mu.store = store
	s.mu.Unlock()
	defer s.close()
	opened := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.look:
		}
		interval := s.settings().ScrubInterval
		if interval <= 0 {
			continue // until that is changed
		}
		// It is looked now and then at least: the wall clock goes on while a machine
		// sleeps.
		wait := restLeft()
		if left := interval - s.since(opened); left > 0 {
			wait = min(wait, left)
		} else {
			_ = s.start(s.settings().ScrubRate) // one that runs already is as good
		}
		timer.Reset(wait)
	}
}

// changed has it looked whether a scrub is due now.
func (s *scrubber) changed() {
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// since is how long ago the last scrub has ended, or the store was opened; 0 while
// one runs.
func (s *scrubber) since(opened time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.mu.run.ended
	switch {
	case s.mu.cancel != nil:
		return 0
	case last.IsZero():
		last = opened
	}
	return time.Since(last)
}

// close ends scrubbing for good.
func (s *scrubber) close() {
	s.mu.Lock()
	s.mu.store = nil
	s.mu.Unlock()
	s.stop()
}

var errScrubRuns = &ipc.Error{Code: ipc.CodeBusy, Message: "scrub: one is running"}

// start begins a scrub of so many bytes a second.
func (s *scrubber) start(rate int64) *ipc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.mu.store == nil:
		return errStopping
	case s.mu.cancel != nil:
		return errScrubRuns
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	s.mu.cancel, s.mu.ended, s.mu.run = cancel, ended, scrubRun{begun: time.Now(), rate: rate}
	store := s.mu.store
	go func() {
		defer close(ended)
		defer cancel()
		s.log.Info("scrub begins", "rate", rate)
		s.scrub(ctx, store, rate)
	}()
	return nil
}

// stop ends the scrub that runs, and reports whether one did.
func (s *scrubber) stop() bool {
	s.mu.Lock()
	cancel, ended := s.mu.cancel, s.mu.ended
	s.mu.Unlock()
	if cancel == nil {
		return false
	}
	cancel()
	<-ended
	return true
}

func (s *scrubber) scrub(ctx context.Context, store *engine.Store, rate int64) {
	o := engine.ScrubOptions{BytesPerSecond: rate, Progress: s.progress}
	if rate == 0 {
		o.BytesPerSecond = -1
	}
	res, err := store.Scrub(ctx, o, s.damage)
	r := s.finish(&res, err)
	level := slog.LevelInfo
	if res.Damages > 0 || r.state() == "failed" {
		level = slog.LevelError
	}
	s.log.Log(context.Background(), level, "scrub ends", "state", r.state(), "bytes", r.done, "records", r.records,
		"damages", r.damages, "damaged_bytes", r.damagedBytes, "took", r.ended.Sub(r.begun), "error", errorText(err))
}

// finish keeps the result of the scrub that runs: none does any more.
func (s *scrubber) finish(res *engine.ScrubResult, err error) scrubRun {
	defer s.changed() // it is due again some time
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.mu.run
	r.ended, r.err = time.Now(), err
	r.done, r.records, r.damages, r.damagedBytes = res.Bytes, res.Records, res.Damages, res.DamagedBytes
	s.mu.cancel = nil
	if err == nil {
		s.mu.scrubs++
		if res.Damages == 0 {
			s.mu.clean = r.ended
		}
	}
	return *r
}

func (s *scrubber) progress(done, total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.run.done, s.mu.run.total = done, total
}

// damage is told of each damaged stretch as it is found.
func (s *scrubber) damage(d engine.Damage) {
	s.mu.Lock()
	r := &s.mu.run
	r.damages++
	r.damagedBytes += d.Until - d.From
	told := len(r.found) < scrubTold
	if told {
		r.found = append(r.found, d)
	}
	s.mu.Unlock()
	if told {
		s.log.Error("scrub found damage", "damage", d.String())
	}
}

// stats adds what is known of scrubs.
func (s *scrubber) stats(all map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.mu.run
	all["scrub_state"], all["scrub_bytes"], all["scrub_total"] = r.state(), r.done, r.total
	all["scrub_damages"], all["scrub_damaged_bytes"] = r.damages, r.damagedBytes
	all["scrub_ended_ms"], all["scrub_clean_ms"], all["scrubs"] = unixMilli(r.ended), unixMilli(s.mu.clean), s.mu.scrubs
}

// unixMilli is t in milliseconds of Unix time, 0 for the zero time.
func unixMilli(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// append appends what status answers with.
func (s *scrubber) append(dst []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.mu.run
	dst = ipc.AppendStr(ipc.AppendStr(ipc.AppendMapHeader(dst, 11), "state"), r.state())
	dst = ipc.AppendInt(ipc.AppendStr(dst, "begun"), unixMilli(r.begun))
	dst = ipc.AppendInt(ipc.AppendStr(dst, "ended"), unixMilli(r.ended))
	dst = ipc.AppendInt(ipc.AppendStr(dst, "rate"), r.rate)
	dst = ipc.AppendInt(ipc.AppendStr(dst, "bytes"), r.done)
	dst = ipc.AppendInt(ipc.AppendStr(dst, "total"), r.total)
	dst = ipc.AppendUint(ipc.AppendStr(dst, "records"), r.records)
	dst = ipc.AppendInt(ipc.AppendStr(dst, "damages"), int64(r.damages))
	dst = ipc.AppendInt(ipc.AppendStr(dst, "damaged_bytes"), r.damagedBytes)
	dst = ipc.AppendArrayHeader(ipc.AppendStr(dst, "found"), len(r.found))
	for _, d := range r.found {
		dst = ipc.AppendStr(ipc.AppendArrayHeader(dst, 4), d.File)
		dst = ipc.AppendStr(ipc.AppendInt(ipc.AppendInt(dst, d.From), d.Until), d.Err.Error())
	}
	return ipc.AppendStr(ipc.AppendStr(dst, "error"), errorText(r.err))
}

// scrub carries out the method of that name.
func (c *conn) scrub(k call) {
	s := &c.server.scrubs
	switch c.call.Action {
	case ipc.ActionStatus:
		if k.answered {
			c.output.ready = s.append(ipc.AppendResultHeader(c.output.ready, k.id))
		}
	case ipc.ActionStop:
		c.beside(func() func() { // a read of the disk may be under way
			ran := s.stop()
			return func() { c.reply(&k, yesNo(ran)) }
		})
	default:
		rate := c.server.settings().ScrubRate
		if c.call.HasRate {
			rate = c.call.Rate
		}
		if err := s.start(rate); err != nil {
			c.refuse(&k, err)
			return
		}
		c.reply(&k, yesNo(true))
	}
}
