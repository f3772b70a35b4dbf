package engine

import "sync/atomic"

// grace is the time a task waits until every section has ended that was open when it
// began: from then on nobody has what he may have seen before. Only the task uses it.
type grace struct{ ended atomic.Bool }

// begin lets the time begin, and wakes the task when it is over. What came before must
// be over.
func (g *grace) begin(s *Store, task *taskRef) {
	g.ended.Store(false)
	s.epoch.Bump(func() {
		g.ended.Store(true)
		task.Wake()
	})
}

// over reports whether it is.
func (g *grace) over() bool { return g.ended.Load() }
