// Command queue is a queue of jobs for several workers. Producers number their jobs with a counter; a
// worker claims a job by compare-and-swap for a time, so that the job of a worker that dies is done by
// another; another counter says up to where all are done. Each job is carried out at least once.
//
//	jobs/head                      jobs/tail
//	    │  done │ claimed │ waiting │   waiting │
//	    └────── jobs/head+1 ... jobs/tail ──────┘
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"rskv/client"
)

// Job is one job, and who does it.
type Job struct {
	Task   string
	Worker string
	Until  time.Time // of the claim
	State  State
}

// State is how far a job is.
type State int

// The states of a job.
const (
	Open    State = iota // waits, or is claimed
	Done                 // goes when the head passes it
	Skipped              // its producer was too late: it takes another number. It stays.
)

// Queue is a queue of jobs.
type Queue struct {
	c    *client.Client
	jobs *client.Typed[Job]
}

var (
	headKey = []byte("jobs/head") // up to which number all jobs are done
	tailKey = []byte("jobs/tail") // number of the last job
)

func jobKey(n int64) []byte { return fmt.Appendf(nil, "jobs/%d", n) }

// Put adds a job. It is on stable storage when Put returns.
func (q *Queue) Put(ctx context.Context, task string) error {
	for {
		n, err := q.c.Add(ctx, tailKey, 1)
		if err != nil {
			return err
		}
		stored, err := q.jobs.Put(ctx, jobKey(n), Job{Task: task}, client.IfAbsent, client.Sync)
		if err != nil || stored {
			return err
		}
	}
}

// Errors of Claim.
var (
	errNone    = errors.New("no job waits")
	errClaimed = errors.New("claimed by another")
)

// Claim takes a job for a time, or returns errNone.
func (q *Queue) Claim(ctx context.Context, worker string, lease time.Duration) (int64, Job, error) {
	head, err := q.c.Add(ctx, headKey, 0)
	if err != nil {
		return 0, Job{}, err
	}
	tail, err := q.c.Add(ctx, tailKey, 0)
	if err != nil {
		return 0, Job{}, err
	}
	for n := head + 1; n <= tail; n++ {
		job, err := q.jobs.Update(ctx, jobKey(n), func(j Job, found bool) (Job, error) {
			if !found || j.State != Open || j.Worker != "" && time.Now().Before(j.Until) {
				return j, errClaimed // or done, or numbered and not there yet
			}
			j.Worker, j.Until = worker, time.Now().Add(lease)
			return j, nil
		})
		if !errors.Is(err, errClaimed) {
			return n, job, err
		}
	}
	return 0, Job{}, errNone
}

// Finish ends a job.
func (q *Queue) Finish(ctx context.Context, n int64) error {
	if _, err := q.jobs.Put(ctx, jobKey(n), Job{State: Done}, client.Sync); err != nil {
		return err
	}
	return q.advance(ctx, n)
}

// advance moves the head over what is done, as far as job n.
func (q *Queue) advance(ctx context.Context, n int64) error {
	for {
		head, err := q.c.Add(ctx, headKey, 0)
		if err != nil || head >= n {
			return err
		}
		next := jobKey(head + 1)
		job, err := q.jobs.Get(ctx, next)
		if errors.Is(err, client.ErrNotFound) {
			// Numbered, and not there though a later one is done: its producer is slow, or dead.
			_, err = q.jobs.Put(ctx, next, Job{State: Skipped}, client.IfAbsent, client.Sync)
			if err != nil {
				return err
			}
			continue
		}
		if err != nil || job.State == Open {
			return err
		}
		moved, err := q.c.CompareAndSwap(ctx, headKey, counter(head), counter(head+1), client.Sync)
		if err == nil && moved && job.State == Done {
			_, err = q.c.Delete(ctx, next)
		}
		if err != nil {
			return err
		}
	}
}

// counter is a number as Add stores it; a counter that nobody has added to is absent.
func counter(n int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(n)) }

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.Dial(ctx, client.DefaultSocket())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	q := &Queue{c, client.NewTyped(c, client.MsgPack[Job]())}

	const jobs = 101
	for i := range jobs - 1 {
		if err := q.Put(ctx, fmt.Sprint("task ", i)); err != nil {
			log.Fatal(err)
		}
	}
	// A producer that dies with a number, and a worker that dies with a job: its claim ends, and another does the job.
	if _, err := c.Add(ctx, tailKey, 1); err != nil {
		log.Fatal(err)
	}
	if err := q.Put(ctx, "last task"); err != nil {
		log.Fatal(err)
	}
	if _, _, err := q.Claim(ctx, "dies", 50*time.Millisecond); err != nil {
		log.Fatal(err)
	}
	var seen sync.Map
	var done atomic.Int64
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			worker := fmt.Sprintf("%d/%d", os.Getpid(), i)
			for done.Load() < jobs {
				n, job, err := q.Claim(ctx, worker, time.Minute)
				if errors.Is(err, errNone) {
					time.Sleep(10 * time.Millisecond)
					continue
				}
				if err != nil {
					log.Fatal(err)
				}
				if _, twice := seen.LoadOrStore(job.Task, true); twice {
					log.Fatal(job.Task, " is done twice")
				}
				if err := q.Finish(ctx, n); err != nil {
					log.Fatal(err)
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	_, _, err = q.Claim(ctx, "late", time.Minute)
	fmt.Println(done.Load(), "jobs done;", err)
}
