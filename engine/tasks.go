package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"rskv/engine/internal/record"
)

// TaskName names a background task of the store.
type TaskName string

// The background tasks.
//
//	task        does                                    stop   run
//	flush       writes frozen pages                     no     no
//	commit      makes what was written durable          no     yes
//	checkpoint  takes index snapshots                   yes    yes
//	growth      splits the index when nobody writes     no     no
//	compact     frees the oldest log                    yes    yes
//	expire      counts out what has expired in memory   yes    yes
//	cache       decides about the read cache            yes    no
//	warm        fills the memory after Open             yes    no
//	order       sees to the ordered index, if there is  no     no
//	forward     keeps in memory what fits there         yes    no
//
// Without flush and commit no writer would get memory, nor anybody an answer to a
// Sync; an index that has begun to grow needs its end. What a user may stop is
// what the store begins by itself: a task that is stopped still ends what is under
// way, and does what it is asked for.
const (
	TaskFlush      TaskName = "flush"
	TaskCommit     TaskName = "commit"
	TaskCheckpoint TaskName = "checkpoint"
	TaskGrowth     TaskName = "growth"
	TaskCompact    TaskName = "compact"
	TaskExpire     TaskName = "expire"
	TaskCache      TaskName = "cache"
	TaskWarm       TaskName = "warm"
	TaskOrder      TaskName = "order"
	TaskForward    TaskName = "forward"
)

var (
	// ErrNoTask: there is no background task of that name.
	ErrNoTask = errors.New("no such background task")
	// ErrTaskFixed: the store does not work without the task, or it cannot be run
	// by hand.
	ErrTaskFixed = errors.New("not with this background task")
)

// TaskInfo tells of a background task.
type TaskInfo struct {
	Name    TaskName
	Stopped bool // by StopTask: it begins nothing by itself
	Fixed   bool // it cannot be stopped
	// Runs is how often it has done its work since Open: checkpoints, passes of
	// compaction; of flush, commit, growth and order the steps of their work.
	Runs     uint64
	LastRun  time.Time     // when the last one ended, to the millisecond; zero: none has
	LastTook time.Duration // how long it took
	LastErr  error         // of the last one; nil where errors are found elsewhere, see Stats.State
	Failed   uint64        // of Runs, those that ended with an error
	Spent    time.Duration // all of them together
	Next     string        // what the next one waits for
}

// tasks is what is known of the background tasks.
type tasks struct {
	clock Clock
	all   [len(taskKinds)]taskRecord // in the order of taskKinds
}

// taskKind is one row of the table.
type taskKind struct {
	name      TaskName
	stops     bool
	byHand    bool
	whyItIsSo string // it cannot be stopped
}

var taskKinds = [...]taskKind{
	{TaskFlush, false, false, "writes need the memory that it frees"},
	{TaskCommit, false, true, "nothing would become durable; see Options.CommitInterval"},
	{TaskCheckpoint, true, true, ""},
	{TaskGrowth, false, false, "an index that grows has to come to an end of it"},
	{TaskCompact, true, true, ""},
	{TaskExpire, true, true, ""},
	{TaskCache, true, false, ""},
	{TaskWarm, true, false, ""},
	{TaskOrder, false, false, "writes need the memory that it gives to the ordered index"},
	{TaskForward, true, false, ""},
}

// taskRecord is what is known of one.
type taskRecord struct {
	stopped atomic.Bool

	mu   sync.Mutex
	runs uint64        // guarded by mu, as all below
	last int64         // wall clock in milliseconds
	took time.Duration // of the last
	err  error         // of the last

	failed uint64
	spent  time.Duration
}

func (t *tasks) init(clock Clock) { t.clock = clock }

// find returns the place of a task.
func (t *tasks) find(name TaskName) (int, error) {
	for i := range taskKinds {
		if taskKinds[i].name == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%w: %q", ErrNoTask, string(name))
}

// record returns what is known of a task that there is.
func (t *tasks) record(name TaskName) *taskRecord {
	i, err := t.find(name)
	if err != nil {
		panic(err.Error())
	}
	return &t.all[i]
}

// stopped reports whether the task may begin nothing by itself.
func (t *tasks) stopped(name TaskName) bool { return t.record(name).stopped.Load() }

// ran notes that the task has done its work, which began at a time of the clock.
func (t *tasks) ran(name TaskName, began int64, err error) {
	r := t.record(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.runs++
	r.last, r.took, r.err = t.clock.Wall(), time.Duration(t.clock.Monotonic()-began), err
	r.spent += r.took
	if err != nil {
		r.failed++
	}
}

// timed makes a step of one whose every step is noted.
func (t *tasks) timed(name TaskName, step func() time.Duration) func() time.Duration {
	return func() time.Duration {
		began := t.clock.Monotonic()
		wait := step()
		t.ran(name, began, nil)
		return wait
	}
}

// Tasks tells of all background tasks.
func (s *Store) Tasks() []TaskInfo {
	list := make([]TaskInfo, len(taskKinds))
	for i := range taskKinds {
		k, r := &taskKinds[i], &s.tasks.all[i]
		list[i] = TaskInfo{Name: k.name, Stopped: r.stopped.Load(), Fixed: !k.stops, Next: s.nextRun(k.name)}
		r.mu.Lock()
		list[i].Runs, list[i].LastTook, list[i].LastErr = r.runs, r.took, r.err
		list[i].Failed, list[i].Spent = r.failed, r.spent
		if r.runs > 0 {
			list[i].LastRun = time.UnixMilli(r.last)
		}
		r.mu.Unlock()
	}
	return list
}

// nextRun says what the next run of a task waits for.
func (s *Store) nextRun(name TaskName) string {
	switch name {
	case TaskCommit:
		if s.opt.CommitInterval < 0 {
			return "when asked"
		}
		return fmt.Sprintf("every %v", s.opt.CommitInterval)
	case TaskCheckpoint:
		if s.opt.CheckpointDistance < 0 || s.tasks.stopped(name) {
			return "when asked, or when the disk budget needs one"
		}
		return fmt.Sprintf("%d bytes of log since the last, of %d", s.replayDistance(), s.opt.CheckpointDistance)
	case TaskCompact:
		_, why := s.compaction.due(s.EstimateGC())
		return why
	case TaskGrowth:
		return "when the index is full, limit: " + s.index.Stats().Limit.String()
	case TaskExpire:
		if n := s.sweep.wheel.Len(); n > 0 {
			return fmt.Sprintf("%d keys in memory that expire, looked at every %v while there are writes", n, sweepTick)
		}
		return "until a key that expires is written"
	case TaskCache:
		return s.cache.next()
	case TaskWarm:
		if s.warm.finished.Load() {
			return "done"
		}
		return "until the memory is full"
	case TaskOrder:
		if s.order.tree == nil {
			return "never: this store has no ordered index"
		}
		return "when the ordered index needs memory, or keys have gone"
	case TaskForward:
		return s.forward.next()
	}
	return "when a page is full, or a commit needs it"
}

// replayDistance is how many bytes of log a recovery would replay now.
func (s *Store) replayDistance() int64 {
	return (s.settled() - record.Addr(s.stats.replayFrom.Load())).Bytes()
}

// StopTask has a background task begin nothing by itself. What is under way comes
// to its end; what is asked for is done; a checkpoint that the disk budget cannot
// do without is taken too. While compaction is stopped, a store that has used up
// its disk budget answers ErrDiskFull.
func (s *Store) StopTask(name TaskName) error { return s.holdTask(name, true) }

// StartTask takes StopTask back.
func (s *Store) StartTask(name TaskName) error { return s.holdTask(name, false) }

func (s *Store) holdTask(name TaskName, stop bool) error {
	i, err := s.tasks.find(name)
	if err != nil {
		return err
	}
	if k := &taskKinds[i]; stop && !k.stops {
		return fmt.Errorf("%w: %s cannot be stopped: %s", ErrTaskFixed, name, k.whyItIsSo)
	}
	if s.tasks.all[i].stopped.Swap(stop) == stop {
		return nil
	}
	s.opt.Logger.Info("background task", "task", string(name), "stopped", stop)
	switch name {
	case TaskCheckpoint:
		s.checkpoints.task.Wake()
	case TaskCompact:
		s.room.look()
		s.compaction.task.Wake()
	case TaskExpire:
		s.sweep.task.Wake()
	case TaskCache:
		s.cache.task.Wake()
	case TaskWarm:
		s.warm.task.Wake()
	}
	return nil
}

// RunTask has a background task do its work now, also one that is stopped, and
// returns when that is done: a full checkpoint, a pass over the whole durable log,
// or a commit. If ctx ends first, its error is returned and the work goes on.
func (s *Store) RunTask(ctx context.Context, name TaskName) error {
	i, err := s.tasks.find(name)
	if err != nil {
		return err
	}
	switch {
	case !taskKinds[i].byHand:
		return fmt.Errorf("%w: %s runs by itself only", ErrTaskFixed, name)
	case name == TaskCheckpoint:
		_, err = s.Checkpoint(ctx, CheckpointOptions{Kind: FullCheckpoint})
	case name == TaskExpire:
		err = s.sweep.run(ctx)
	case name == TaskCompact:
		_, err = s.Compact(ctx, CompactOptions{})
	default:
		_, err = s.Sync(ctx)
	}
	return err
}
