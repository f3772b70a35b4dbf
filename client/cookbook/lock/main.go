// Command lock lets one of several workers at a time into a section, by compare-and-swap. The lock is
// a lease: it ends by itself, so that a worker that dies does not keep the others out; and each lease has
// a number that grows, so that what the section writes to can refuse a worker whose lease has ended
// without its noticing (a fencing token).
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"rskv/client"
)

// Lease is what is stored under the name of the lock. It stays there when it is released, for its
// number to go on.
type Lease struct {
	Owner string
	Until time.Time // by the clock of this machine, which all workers share
	Token int64
}

// Lock is one lock.
type Lock struct {
	leases *client.Typed[Lease]
	name   []byte
}

// errHeld says that somebody else has the lock.
var errHeld = errors.New("held by another")

// Try takes the lock for a time, or returns errHeld. Sync: a crash of the daemon must not give the lock
// to a second one.
func (l *Lock) Try(ctx context.Context, owner string, lease time.Duration) (Lease, error) {
	return l.leases.Update(ctx, l.name, func(was Lease, _ bool) (Lease, error) {
		if was.Owner != "" && time.Now().Before(was.Until) {
			return was, errHeld
		}
		return Lease{owner, time.Now().Add(lease), was.Token + 1}, nil
	}, client.Sync)
}

// Release gives up a lease, if it is still the one in force.
func (l *Lock) Release(ctx context.Context, mine Lease) error {
	_, err := l.leases.Update(ctx, l.name, func(now Lease, _ bool) (Lease, error) {
		if now.Token != mine.Token {
			return now, errHeld
		}
		return Lease{Token: now.Token}, nil
	})
	if errors.Is(err, errHeld) {
		return nil // it had ended, and somebody else has it
	}
	return err
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.Dial(ctx, client.DefaultSocket())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	lock := &Lock{client.NewTyped(c, client.MsgPack[Lease]()), []byte("lock:report")}

	var inside, done, refused atomic.Int64
	var highest atomic.Int64 // what the section writes to remembers the last token
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			owner := fmt.Sprintf("%d/%d", os.Getpid(), i)
			for done.Load() < 20 {
				lease, err := lock.Try(ctx, owner, time.Minute)
				if errors.Is(err, errHeld) {
					time.Sleep(time.Millisecond)
					continue
				}
				if err != nil {
					log.Fatal(err)
				}
				if inside.Add(1) != 1 || lease.Token <= highest.Load() {
					log.Fatal("two at a time")
				}
				highest.Store(lease.Token)
				done.Add(1)
				inside.Add(-1)
				if err := lock.Release(ctx, lease); err != nil {
					log.Fatal(err)
				}
			}
		})
	}
	all.Wait()

	// One that dies with the lock, here: takes it for an instant, and does not release it.
	dead, err := lock.Try(ctx, "dead", time.Nanosecond)
	if err != nil {
		log.Fatal(err)
	}
	next, err := lock.Try(ctx, "next", time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	if dead.Token < next.Token {
		refused.Add(1) // whoever is asked with the old token sees that it is old
	}
	fmt.Println(done.Load() >= 20, next.Owner, refused.Load())
}
