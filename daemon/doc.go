// Package daemon serves one store to the programs of one machine over a Unix
// socket.
//
//	                    +------------- connection (conn.go) -------------+
//	client --read(2)--> | reader: split, parse, batch --> session.Start  |
//	                    |             answers | ready at once            |
//	       <-write(2)-- | out  <-------------+                           |
//	                    |   ^  helper: session.Complete <-- cold reads   |
//	                    |   +--------- commits, checkpoints <-- store    |
//	                    |   writer: only while the socket is full        |
//	                    +------------------------------------------------+
//
// A connection has one goroutine, the reader. Every whole request in what one
// read brought is handled where it lies, as one batch of the engine, and all
// answers leave with one write. Two more goroutines exist only while needed:
// the helper, from the first operation that has to wait for the disk on, and
// the writer, while the client does not take its answers.
//
// Invariants:
//   - Everything of a connection is guarded by its mutex, which is never held
//     across a read, a write or a wait for another connection.
//   - Nothing is shared between connections on the way of a request but the
//     store and counters, so what one client does or fails to do is not felt
//     by the others.
//   - A request is taken up only while its connection is within its bounds:
//     bytes of answers not sent, requests not answered, bytes waiting for the
//     disk. Beyond them the connection is not read; nothing is ever dropped.
//   - A write that was begun is finished, also when its client is gone.
//   - An answer that promises durability is appended after the commit that
//     covers it, and never before.
//
// Read daemon.go first (Run is the table of contents), then conn.go, batch.go
// and answer.go; session.go holds what clients can resume. Settings are one
// table, settings.go, from which flags, variables, file keys and help come.
package daemon
