package sim

import "time"

// Task is a fiber that runs a function again and again.
type Task struct {
	w     *World
	name  string
	woken bool
	quit  bool
	gone  chan struct{}
}

// StartTask runs step again and again, never twice at a time. step returns how
// long to wait before the next run: 0 not at all, negative until the task is
// woken.
func (w *World) StartTask(name string, step func() time.Duration) *Task {
	t := &Task{w: w, name: name, gone: make(chan struct{})}
	w.start(name, func() {
		defer close(t.gone)
		t.run(step)
	})
	return t
}

func (t *Task) run(step func() time.Duration) {
	w := t.w
	f := w.self
	for !t.quit {
		t.woken = false
		wait := step()
		switch {
		case t.quit:
		case t.woken || wait == 0:
			w.Yield()
		default:
			f.task = t
			if wait > 0 {
				f.until = w.now + int64(wait)
				w.after(int64(wait), "timer", func() {})
			}
			f.wait()
			f.task = nil
		}
	}
}

// Wake makes the task run soon. A task that is running when it is woken runs once
// more.
func (t *Task) Wake() { t.woken = true }

// Stop ends the task and returns when it is not running any more.
func (t *Task) Stop() {
	t.quit = true
	t.w.Wait(t.gone)
}
