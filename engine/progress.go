package engine

import "time"

// Stage names what Open is busy with.
type Stage string

// The stages of Open, in this order; each may be absent.
const (
	StageVerify   Stage = "verifying the log" // looking for the last commit after a crash
	StageSnapshot Stage = "loading the index" // reading the newest snapshot
	StageReplay   Stage = "replaying the log" // applying what came after it
	StageOrder    Stage = "ordering the keys" // filling the ordered index from the whole log
)

// Progress says how far Open has come. Done and Total are bytes of the stage.
type Progress struct {
	Stage       Stage
	Done, Total int64
}

// progressEvery is how often Options.Progress is called.
const progressEvery = 100 * time.Millisecond

// reporter returns a function that tells Options.Progress about a stage, at its
// beginning, every progressEvery, and at its end.
func (s *Store) reporter(stage Stage, total int64) func(done int64) {
	if s.opt.Progress == nil {
		return func(int64) {}
	}
	s.opt.Progress(Progress{Stage: stage, Total: total})
	last := s.opt.Clock.Monotonic()
	return func(done int64) {
		now := s.opt.Clock.Monotonic()
		if done = min(done, total); done == total || now-last >= int64(progressEvery) {
			last = now
			s.opt.Progress(Progress{Stage: stage, Done: done, Total: total})
		}
	}
}
