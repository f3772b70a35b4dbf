// Command cache keeps what is costly to compute for a time: whoever does not find it computes it, one at a
// time for each key and process, and puts it back with a time to live. An answer of the cache that is late or
// an error is no reason to fail: then it is computed.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"sync/atomic"
	"time"

	"rskv/client"
)

// Cache is a cache of Ts.
type Cache[T any] struct {
	values  *client.Typed[T]
	ttl     time.Duration
	patient time.Duration // how long the cache may take before it is done without

	mu      sync.Mutex
	flights map[string]*flight[T] // what is being computed; guarded by mu
}

// flight is one computation, and who waits for it.
type flight[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// New returns a cache whose values live for ttl.
func New[T any](c *client.Client, ttl time.Duration) *Cache[T] {
	return &Cache[T]{
		values: client.NewTyped(c, client.MsgPack[T]()), ttl: ttl, patient: 100 * time.Millisecond, flights: map[string]*flight[T]{},
	}
}

// Get returns the value of key, from the cache or from compute.
func (c *Cache[T]) Get(ctx context.Context, key string, compute func(context.Context) (T, error)) (T, error) {
	if v, found := c.find(ctx, key); found {
		return v, nil
	}
	c.mu.Lock()
	f, running := c.flights[key]
	if !running {
		f = &flight[T]{done: make(chan struct{})}
		c.flights[key] = f
	}
	c.mu.Unlock()
	if !running {
		c.fly(ctx, key, f, compute)
	}
	select {
	case <-f.done:
		return f.value, f.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// find looks into the cache.
func (c *Cache[T]) find(ctx context.Context, key string) (v T, found bool) {
	ctx, cancel := context.WithTimeout(ctx, c.patient)
	defer cancel()
	v, err := c.values.Get(ctx, []byte(key))
	if err != nil && !errors.Is(err, client.ErrNotFound) {
		log.Printf("cache: get %s: %v", key, err)
	}
	return v, err == nil
}

// fly computes the value for everybody who waits for f, unless one came while f was made.
func (c *Cache[T]) fly(ctx context.Context, key string, f *flight[T], compute func(context.Context) (T, error)) {
	var found bool
	if f.value, found = c.find(ctx, key); !found {
		if f.value, f.err = compute(ctx); f.err == nil {
			c.store(ctx, key, f.value)
		}
	}
	c.mu.Lock()
	delete(c.flights, key)
	c.mu.Unlock()
	close(f.done)
}

// store puts a value into the cache.
func (c *Cache[T]) store(ctx context.Context, key string, v T) {
	ctx, cancel := context.WithTimeout(ctx, c.patient)
	defer cancel()
	if _, err := c.values.Put(ctx, []byte(key), v, client.TTL(c.ttl)); err != nil {
		log.Printf("cache: put %s: %v", key, err)
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.Dial(ctx, client.DefaultSocket())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	var computed atomic.Int64
	square := func(context.Context) (int, error) {
		computed.Add(1)
		time.Sleep(20 * time.Millisecond)
		return 7 * 7, nil
	}
	cache := New[int](c, time.Minute)
	cache.patient = 10 * time.Second // nobody waits for the site that this is part of
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if v, err := cache.Get(ctx, "cache:7", square); err != nil || v != 49 {
				log.Fatal(v, err)
			}
		})
	}
	all.Wait()
	fmt.Println("computed", computed.Load(), "time for 50 requests")
	if _, err := c.Expire(ctx, []byte("cache:7"), time.Millisecond); err != nil {
		log.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	v, err := cache.Get(ctx, "cache:7", square)
	fmt.Println(v, err, "computed", computed.Load(), "times when it had expired")
}
