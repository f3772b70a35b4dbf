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
// its requests without any of that and waits once for all of them; it is the fast path. A caller who
// is the only one, with one request at a time, soon writes and reads himself: see lone.go.
//
// What is promised:
//   - A context ends the wait, never the connection. A write given up may still take effect.
//   - A lost connection is dialled again, with growing pauses. Requests that change nothing are sent
//     again; a write is only if it was not wholly sent, else it fails with ErrAnswerLost, because
//     nobody knows whether it took effect, or still will, even after what comes on the next
//     connection. A session does better: see below.
//   - Memory is bounded: a limit on the requests in flight and on their bytes makes callers wait.
//   - Byte strings are copied on the way in and on the way out; only a Batch lends its own.
//
// Requests of one goroutine to one key take effect in the order in which they were made.
//
// # Exactly once
//
// WithSession makes every write take effect exactly once as long as the Client lives, whatever
// becomes of the connection and of the daemon. The Client keeps each write until the daemon has said
// that it is on stable storage. When it connects again it learns how far the daemon got, and sends
// what the daemon does not have, in the old order and before anything new: what the connection lost,
// and what a crash of the daemon undid although it had been answered.
//
// It is exactly once for the effect; the answer may be lost all the same:
//
//   - A write that took effect, and whose answer was lost, succeeds if there is but one answer to it
//     (a Put without a condition, an MPut, a Blind delete) and the daemon can tell that it did not
//     refuse it. Else it fails with ErrAnswerLost, which then means: took effect once, unless it was
//     refused. A daemon that crashed since cannot tell; one that did not answers for refused ones.
//   - ErrConnLost without ErrAnswerLost means, as ever, that it has no effect and never will.
//   - With ErrAnswerLost because there was no connection for longer than WithRetryFor, the write is
//     still kept, and takes effect at the latest when there is one again.
//   - The answer to a write that is not durable is provisional where other clients write the same
//     keys: after a crash of the daemon writes are carried out again, and between those of others. A
//     CompareAndSwap for a lock needs Sync.
//   - If the daemon does not know the session any more, or says less is durable than before, its
//     writes cannot be sent again without risk. Who waits for one gets ErrSessionLost, and a new
//     session begins; WithSessionLoss tells the program. Close ends the promise: Sync before it.
//
// Without the option nothing is kept. It is not the default because it has its price: a copy of each
// write, up to 64 MiB, and with what the daemon does for it a tenth to a fifth of the throughput of a
// Batch of small puts; in the daemon, writes that take effect in order even when one of them has to
// wait for the disk, and a place in the table of sessions; and for the caller, waiting when the disk
// cannot keep up (WithKept). A cache has no use for that. A program that adds, appends or swaps does.
//
// Tests get a daemon in their own process by package rskvtest. Traces and metrics of any library are
// attached by WithHooks.
//
// The package imports ipc and msgpack/v5, never the engine. Read flight.go first, then mux.go, then
// lone.go and session.go.
package client
