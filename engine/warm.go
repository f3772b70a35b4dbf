package engine

import (
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"rskv/engine/internal/manifest"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

// warmer brings the newest pages of the log back into memory after an open, in
// the background, until memory is full or the log needs it: what was written
// last is what is asked for first. Its fields belong to the task's step.
type warmer struct {
	store *Store
	task  taskRef

	spans    []manifest.Span // of the log as it was found
	page     record.Addr     // under way
	frame    []byte
	read     ioring.Op
	done     chan struct{} // closed when the read has answered; nil: none under way
	over     bool
	finished atomic.Bool  // the same, for everybody
	began    int64        // clock
	notes    []expiryNote // records of the page under way that need a timer
	pages    int64
}

func (w *warmer) init(s *Store) {
	w.store = s
	w.over = s.opt.ColdStart
	w.finished.Store(w.over)
	s.mu.Lock() // compaction runs by now, and may give back what the last run has left
	w.spans = slices.Clone(s.mu.manifest.Spans)
	s.mu.Unlock()
	w.began = s.opt.Clock.Monotonic()
	w.read.Kind = ioring.Read
}

// step is one step of the task: it asks for a page, or takes the one that has
// arrived into memory.
func (w *warmer) step() time.Duration {
	if !w.task.ready() {
		return time.Millisecond // Open is still starting the tasks
	}
	if w.over {
		return -1
	}
	if w.done == nil && w.store.tasks.stopped(TaskWarm) {
		return -1
	}
	if w.done == nil {
		w.ask()
		return -1
	}
	select {
	case <-w.done:
	default:
		return -1
	}
	w.done = nil
	w.notes = w.notes[:0]
	if !w.store.log.WarmEnd(w.page, w.frame, w.verified()) {
		w.end()
		return -1
	}
	if len(w.notes) > 0 {
		w.store.sweep.note(w.notes)
		w.store.sweep.task.Wake() // it may wait for a later one
	}
	w.store.sweep.warm.Store(uint64(w.page))
	w.pages++
	w.store.stats.warmed.Add(uint64(len(w.frame)))
	return 0
}

func (w *warmer) ask() {
	var ok bool
	if w.page, w.frame, ok = w.store.log.WarmStart(); !ok {
		w.end()
		return
	}
	done := make(chan struct{})
	w.done = done
	w.read = ioring.Op{Kind: ioring.Read, Off: w.page.Bytes(), Buf: w.frame, Done: func(*ioring.Op) {
		close(done)
		w.task.Wake()
	}}
	w.store.dev.Submit([]*ioring.Op{&w.read})
}

// verified reports whether every record of the page that was read is sound. One
// that is not is left to be found, and reported, by whoever asks for it.
func (w *warmer) verified() bool {
	if w.read.Err != nil {
		return false
	}
	i := slices.IndexFunc(w.spans, func(s manifest.Span) bool {
		return s.Start <= w.page && w.page < s.End
	})
	if i < 0 {
		return false
	}
	span := w.spans[i]
	units := record.Addr(len(w.frame) / record.Unit)
	sound := true
	check := pageCheck{
		seed:    record.NewSeed(w.store.mu.manifest.StoreID, span.Generation),
		record:  w.look,
		damaged: func(_, _ record.Addr, _ error) error { sound = false; return errChecksum },
	}
	err := check.run(w.frame, w.page, w.page, min(w.page+units, span.End))
	return err == nil && sound
}

// look has a record of the page that expires swept when that is due, or marks it if
// it was swept when it was in memory before.
func (w *warmer) look(r *logRecord) error {
	expiry := r.expiry()
	switch {
	case expiry == 0 || !r.isUser() || record.KindOf(r.w1) == record.Tombstone:
	case w.store.sweep.counted(r.addr, expiry):
		w.notes = append(w.notes, expiryNote{addr: r.addr, expiry: expiry, timer: true})
	default:
		record.Sweep(unsafe.Pointer(unsafe.SliceData(r.image)))
	}
	return nil
}

func (w *warmer) end() {
	w.over = true
	w.finished.Store(true)
	w.store.tasks.ran(TaskWarm, w.began, nil)
	if w.pages > 0 {
		w.store.opt.Logger.Debug("newest pages are in memory",
			slog.Int64("bytes", w.pages*int64(w.store.opt.PageSize)),
			slog.Duration("took", time.Duration(w.store.opt.Clock.Monotonic()-w.began)))
	}
}

// stop ends the task and waits for a read under way.
func (w *warmer) stop() {
	w.task.Stop()
	if w.done != nil {
		w.store.opt.Runner.Wait(w.done)
		w.store.log.WarmEnd(w.page, w.frame, false)
	}
}
