package fio

import (
	"context"
	"fmt"
	"time"
)

// loop is one job as it runs. All of it belongs to the job's goroutine.
//
//	free ──take──> batch ──submit──> in flight ──reap──> count ──> free
type loop struct {
	job     *Job
	backend backend
	clock   clock
	live    *Live
	pick    *picker
	stat    *stat

	free     []*request
	batch    []*request
	reaped   []*request
	inFlight int
	slat     []int64 // by slot: how long the last submit took, ns

	begin, end  int64       // of what is counted, on the clock; end 0: none
	ramp        int64       // end of the ramp; 0: it is over
	handed      [2]uint64   // requests by direction, for the rate
	bytes       int64       // handed over
	unsynced    int         // writes since the last sync
	sampled     int64       // when the rate was last sampled
	atSample    [2]progress // what had been done then
	last        int64       // when the last request had finished
	finished    bool        // no more requests begin
	finalSynced bool
}

// progress is what a sample counts.
type progress struct{ ios, bytes uint64 }

// run runs the job from its barrier to its last answer.
func (l *loop) run(ctx context.Context, start *barrier) error {
	start.pass()
	l.start()
	for {
		l.fill(ctx)
		if l.inFlight == 0 {
			if l.finished {
				break
			}
			time.Sleep(l.pause())
			continue
		}
		if err := l.collect(l.wait()); err != nil {
			return l.drain(err)
		}
		l.passRamp(start)
	}
	l.stat.elapsed = time.Duration(max(l.last-l.begin, 1))
	return ctx.Err()
}

// start sets the times by which the job ends.
func (l *loop) start() {
	now := l.clock.now()
	l.begin, l.sampled, l.last = now, now, now
	if l.job.Runtime > 0 {
		l.end = now + int64(l.job.Ramp+l.job.Runtime)
	}
	if l.job.Ramp > 0 {
		l.ramp = now + int64(l.job.Ramp)
	}
}

// passRamp forgets what was counted before the ramp was over. As with fio, all of the
// runtime comes behind it, however late the end of the ramp was noticed.
func (l *loop) passRamp(start *barrier) {
	if l.ramp == 0 || l.last < l.ramp {
		return
	}
	l.ramp, l.begin, l.sampled = 0, l.last, l.last
	if l.end > 0 {
		l.end = l.begin + int64(l.job.Runtime)
	}
	l.stat, l.atSample, l.handed = newStat(), [2]progress{}, [2]uint64{}
	l.bytes = 0
	start.ramped()
}

// over decides whether the job has done its work.
func (l *loop) over(now int64) bool {
	if l.end > 0 && now >= l.end {
		return true
	}
	return !l.job.TimeBased && l.bytes >= l.job.budget()
}

// fill hands over as many requests as the depth, the rate and the job allow.
func (l *loop) fill(ctx context.Context) {
	now := l.clock.now()
	l.batch = l.batch[:0]
	for len(l.free) > 0 && !l.finished {
		if l.over(now) || ctx.Err() != nil {
			l.finished = true
			break
		}
		if !l.next(now) {
			break
		}
	}
	if l.finished && l.job.EndFsync && l.job.Write && !l.finalSynced && l.inFlight+len(l.batch) == 0 && ctx.Err() == nil {
		l.finalSynced = true
		l.take(syncing)
	}
	if len(l.batch) > 0 {
		l.hand()
	}
}

// next takes one request into the batch, unless the rate says that it is early.
func (l *loop) next(now int64) bool {
	if l.job.Fsync > 0 && l.unsynced >= l.job.Fsync {
		l.unsynced = 0
		l.take(syncing)
		return true
	}
	d := l.pick.direction()
	if l.due(d) > now {
		if !l.job.Read || !l.job.Write {
			return false
		}
		if d = 1 - d; l.due(d) > now {
			return false
		}
	}
	r := l.take(kind(d))
	off, length := l.pick.block(d)
	r.off, r.buf = off, r.room[:length]
	if d == writing {
		l.backend.stamp(r)
		l.unsynced++
	}
	l.handed[d]++
	l.bytes += length
	return true
}

// due is when the next request of a direction may begin.
func (l *loop) due(d int) int64 {
	rate := l.job.Rate[d]
	if rate == 0 {
		return 0
	}
	return l.begin + int64(float64(l.handed[d])*1e9/float64(rate))
}

// take moves a free request into the batch.
func (l *loop) take(k kind) *request {
	r := l.free[len(l.free)-1]
	l.free = l.free[:len(l.free)-1]
	r.kind, r.buf, r.err = k, nil, nil
	l.batch = append(l.batch, r)
	return r
}

// hand submits the batch.
func (l *loop) hand() {
	begin := l.clock.now()
	for i, r := range l.batch {
		r.begin, r.done = begin, 0
		l.stat.level.add(depthClass(l.inFlight + i + 1))
	}
	l.stat.submit.add(batchClass(len(l.batch)))
	l.inFlight += len(l.batch)
	l.backend.submit(l.batch)
	took := l.clock.now() - begin
	for _, r := range l.batch {
		l.slat[r.slot] = took
	}
}

// collect takes what has finished.
func (l *loop) collect(wait time.Duration) error {
	l.reaped = l.backend.reap(l.reaped[:0], wait)
	if len(l.reaped) == 0 {
		return nil
	}
	l.inFlight -= len(l.reaped)
	l.stat.complete.add(batchClass(len(l.reaped)))
	var nanos, bytes uint64
	for _, r := range l.reaped {
		if err := l.count(r); err != nil {
			return err
		}
		nanos += uint64(r.done - r.begin)
		bytes += uint64(len(r.buf))
		l.free = append(l.free, r)
	}
	l.live.Ops.Add(uint64(len(l.reaped)))
	l.live.Bytes.Add(bytes)
	l.live.Nanos.Add(nanos)
	l.sample()
	return nil
}

// count takes one answer.
func (l *loop) count(r *request) error {
	if r.err != nil {
		return fmt.Errorf("%s at %d: %w", [...]string{"read", "write", "sync"}[r.kind], r.off, r.err)
	}
	l.last = max(l.last, r.done)
	if r.kind == syncing {
		l.stat.syncs.add(r.done - r.begin)
		return nil
	}
	if r.kind == reading {
		if err := l.backend.check(r); err != nil {
			return err
		}
	}
	whole, slat := r.done-r.begin, l.slat[r.slot]
	if slat >= whole {
		// It was done before submit returned: then there is no time of submission,
		// as with fio's synchronous engines.
		slat = 0
	}
	l.stat.sides[r.kind].add(len(r.buf), slat, whole-slat)
	l.stat.latency.add(whole)
	return nil
}

// sample takes the rate since the last sample, every sampleEvery.
func (l *loop) sample() {
	since := l.last - l.sampled
	if since < int64(sampleEvery) {
		return
	}
	for d := range l.stat.sides {
		s, old := &l.stat.sides[d], &l.atSample[d]
		if s.ios > 0 {
			seconds := float64(since) / 1e9
			s.bandwidth.add(int64(float64(s.bytes-old.bytes) / 1024 / seconds))
			s.iops.add(int64(float64(s.ios-old.ios) / seconds))
		}
		*old = progress{s.ios, s.bytes}
	}
	l.sampled = l.last
}

// pause is how long to sleep when nothing is in flight and nothing due.
func (l *loop) pause() time.Duration {
	due := l.due(reading)
	switch {
	case !l.job.Read:
		due = l.due(writing)
	case l.job.Write:
		due = min(due, l.due(writing))
	}
	return min(max(time.Duration(due-l.clock.now()), 0), pauseMax)
}

// wait is how long an answer may be waited for before the next request is due.
func (l *loop) wait() time.Duration {
	if l.finished || len(l.free) == 0 || l.job.Rate == [2]int{} {
		return -1
	}
	return max(l.pause(), time.Microsecond)
}

// drain waits for what is in flight after an error.
func (l *loop) drain(err error) error {
	for l.inFlight > 0 {
		l.reaped = l.backend.reap(l.reaped[:0], -1)
		l.inFlight -= len(l.reaped)
	}
	return err
}
