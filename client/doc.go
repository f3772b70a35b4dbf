// Package client talks to a rskv daemon over its Unix socket.
//
//	c, err := client.Dial(ctx, client.DefaultSocket())
//	value, err := c.Get(ctx, key)        // errors.Is(err, client.ErrNotFound)
//	stored, err := c.Put(ctx, key, value, client.IfAbsent)
//
// One Client is one connection, for as many goroutines as there are. Their requests meet in one
// buffer and share the write, and the answers come back in any order:
//
//	callers ──submit──> out ──flusher──> socket ──run──> answers ──done──> callers
//	             register in table        look up in table
//
// The flusher yields once before it writes, so that everybody who is ready to ask does so first:
// with 256 goroutines this is worth four times the throughput of a connection pool. A Batch fills
// its requests without any of that and waits once for all of them; it is the fast path.
//
// What is promised:
//   - A context ends the wait, never the connection. A write given up may still take effect.
//   - A lost connection is dialled again, with growing pauses. Requests that change nothing are sent
//     again; a write is only if it was not wholly sent, else it fails with ErrAnswerLost, because
//     nobody knows whether it took effect.
//   - Memory is bounded: a limit on the requests in flight and on their bytes makes callers wait.
//   - Byte strings are copied on the way in and on the way out; only a Batch lends its own.
//
// Requests of one goroutine to one key take effect in the order in which they were made.
//
// The package imports ipc and msgpack/v5, never the engine. Read flight.go first, then mux.go.
package client
