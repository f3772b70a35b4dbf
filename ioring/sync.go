//go:build unix

package ioring

import "sync"

// syncer serves Sync ops in rounds on one goroutine: all that wait when a round
// begins share it, and those that come meanwhile wait for the next, because a
// write may have finished after the round looked for it.
type syncer struct {
	disk *disk
	wake chan struct{} // capacity 1
	done chan struct{}
	// round is held during a round, by the goroutine or in its place.
	round sync.Mutex
	mu    struct {
		sync.Mutex
		waiting opList
		stopped bool
	}
}

func (s *syncer) start(d *disk) {
	s.disk = d
	s.wake = make(chan struct{}, 1)
	s.done = make(chan struct{})
	go s.run()
}

// add takes ownership of the ops.
func (s *syncer) add(ops opList) {
	s.mu.Lock()
	s.mu.waiting.append(ops)
	s.mu.Unlock()
	s.kick()
}

// atOnce serves a lone op on the caller's thread, unless a round is under way.
func (s *syncer) atOnce(op *Op) bool {
	if !s.round.TryLock() {
		return false
	}
	// Held during Done: a sync submitted from there takes the goroutine's round.
	defer s.round.Unlock()
	s.disk.finishSync(op, s.disk.volume.sync())
	return true
}

func (s *syncer) kick() {
	select {
	case s.wake <- struct{}{}:
	default: // a wake-up is on its way, and will find the ops
	}
}

// stop ends the goroutine; nothing is waiting any more.
func (s *syncer) stop() {
	s.mu.Lock()
	s.mu.stopped = true
	s.mu.Unlock()
	s.kick()
	<-s.done
}

func (s *syncer) run() {
	defer close(s.done)
	for range s.wake {
		s.mu.Lock()
		round, stopped := s.mu.waiting, s.mu.stopped
		s.mu.waiting = opList{}
		s.mu.Unlock()
		if stopped {
			return
		}
		if round.first == nil {
			continue // the round before has served them
		}
		s.round.Lock()
		err := s.disk.volume.sync()
		s.round.Unlock()
		for op := round.pop(); op != nil; op = round.pop() {
			s.disk.finishSync(op, err)
		}
	}
}
