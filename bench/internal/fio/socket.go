package fio

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"rskv/bench/internal/measure"
	"rskv/bench/internal/peer"
	"rskv/client"
)

// reapShare of the requests in flight are waited for at once, so that requests
// travel in company: a batch each way, not a wake-up each.
const reapShare = 4

// socketTarget is a daemon of this run's own.
type socketTarget struct {
	server *peer.Server
	files  files
	clock  clock
	memory int64
	commit time.Duration
}

// openSocket starts the daemon.
func openSocket(ctx context.Context, program, dir string, jobs []*Job, c clock) (*socketTarget, error) {
	t := &socketTarget{files: files{}, clock: c, memory: jobs[0].Memory, commit: jobs[0].Commit}
	if err := t.files.place(jobs); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("directory of the daemon: %w", err)
	}
	var err error
	t.server, err = peer.RSKVD(ctx, program, dir, t.memory, max(t.commit, 0))
	return t, err
}

func (t *socketTarget) segment() int64     { return 0 }
func (t *socketTarget) cpu() time.Duration { return measure.ProcessCPU(t.server.Pid()) }
func (t *socketTarget) close() error       { return t.server.Stop() }

func (t *socketTarget) about() string {
	return fmt.Sprintf("daemon through its socket, one client a job, memory %d MiB, commit %s; CPU is the daemon's and this process's", t.memory>>20, interval(t.commit))
}

func (t *socketTarget) open(j *Job) (backend, error) {
	// A job's requests in flight are bounded by its depth; the client's own bounds
	// must not come before that.
	c, err := client.Dial(context.Background(), t.server.Socket, client.WithMaxInFlight(depthMax, buffersMax))
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return &socketBackend{keyed: keyed{t.files.number(j), j.unit()}, target: t, client: c}, nil
}

// socketBackend is a job's connection. Requests are waited for in the order in
// which they were sent.
type socketBackend struct {
	keyed
	target *socketTarget
	client *client.Client
	sent   []sent // oldest first
}

// sent is a request in flight and what will answer it.
type sent struct {
	r    *request
	wait func() error
}

func (b *socketBackend) submit(rs []*request) {
	ctx := context.Background()
	for _, r := range rs {
		b.sent = append(b.sent, sent{r, b.send(ctx, r)})
	}
}

func (b *socketBackend) send(ctx context.Context, r *request) func() error {
	var room [keySize]byte
	key := b.key(room[:0], r)
	switch r.kind {
	case reading:
		f := b.client.GetAsync(ctx, key)
		return func() error {
			v, err := f.Wait(ctx)
			if errors.Is(err, client.ErrNotFound) {
				err = b.missing(r)
			}
			r.buf = v
			return err
		}
	case writing:
		f := b.client.PutAsync(ctx, key, r.buf)
		return func() error {
			stored, err := f.Wait(ctx)
			if err == nil && !stored {
				err = fmt.Errorf("%w: a put was not carried out", measure.ErrWrong)
			}
			return err
		}
	}
	done := make(chan error, 1)
	go func() {
		_, err := b.client.Sync(ctx)
		done <- err
	}()
	return func() error { return <-done }
}

func (b *socketBackend) reap(dst []*request, wait time.Duration) []*request {
	if len(b.sent) == 0 || wait == 0 {
		return dst
	}
	n := max(len(b.sent)/reapShare, 1)
	for _, s := range b.sent[:n] {
		s.r.err = s.wait()
		s.r.done = b.target.clock.now()
		dst = append(dst, s.r)
	}
	b.sent = append(b.sent[:0], b.sent[n:]...)
	return dst
}

func (b *socketBackend) close() error { return b.client.Close() }
