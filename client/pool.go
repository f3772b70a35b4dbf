package client

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync/atomic"
)

// Pool is several Clients of one daemon, each with a connection and, WithSession, a session of its own.
// One Client serves any number of goroutines, so a Pool is for what one connection cannot do: to use
// more than one core for reading answers, and to keep large values from holding up small ones.
//
// Requests for one key keep their order only if they go to the same Client: take it from For.
type Pool struct {
	clients []*Client
	seed    maphash.Seed
	turn    atomic.Uint64
}

// DialPool makes a Pool of size Clients, at least one; see Dial. The caller must Close it.
func DialPool(ctx context.Context, path string, size int, opts ...Option) (*Pool, error) {
	p := &Pool{seed: maphash.MakeSeed()}
	for i := range max(size, 1) {
		c, err := Dial(ctx, path, opts...)
		if err != nil {
			_ = p.Close()
			return nil, fmt.Errorf("connection %d: %w", i+1, err)
		}
		p.clients = append(p.clients, c)
	}
	return p, nil
}

// For returns the Client for a key, the same one each time.
func (p *Pool) For(key []byte) *Client {
	return p.clients[maphash.Bytes(p.seed, key)%uint64(len(p.clients))]
}

// Next returns one Client after the other, for what is not about one key.
func (p *Pool) Next() *Client { return p.clients[p.turn.Add(1)%uint64(len(p.clients))] }

// Clients returns all of them. The slice is the Pool's.
func (p *Pool) Clients() []*Client { return p.clients }

// Sync returns when every earlier write of all connections is on stable storage.
func (p *Pool) Sync(ctx context.Context) error {
	waiting := make([]*Future[uint64], len(p.clients))
	for i, c := range p.clients { // all asked at once, so that they share the commit
		waiting[i] = c.syncAsync(ctx)
	}
	var errs []error
	for _, w := range waiting {
		_, err := w.Wait(ctx)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Close closes all Clients.
func (p *Pool) Close() error {
	var errs []error
	for _, c := range p.clients {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
