package goal

// Published figures of programs that are not run here.
var (
	// fasterReads and the next are of C++ FASTER's own YCSB benchmark (C and A, 10 M
	// keys of 8 + 8 B, uniform), on two cores of the kind of machine the figures of
	// bench/README.md are from; the upper ends of what it gave there.
	fasterReads  = &Published{"C++ FASTER, 2 threads, not run here", 9.7}
	fasterWrites = &Published{"C++ FASTER, 2 threads, not run here", 9.0}
	fasterOne    = &Published{"C++ FASTER, 1 thread, not run here", 4.8}
	// rustWrites is what rskv in Rust published (Criterion, release build).
	rustWrites = &Published{"rskv in Rust, as published", 490}
)

const (
	inMemory     = "engine in process, everything in memory"
	pipelined    = "Unix socket, pipelined"
	durable      = "Unix socket, every put on stable storage before its answer"
	fromDisk     = "reads from disk"
	beyondMemory = "reads beyond the memory"
	oneClient    = "Unix socket, goroutines on one client: get"
	checkpoint   = "a checkpoint under load"
	held         = "writers held by commits"
	recovery     = "recovery"
	compaction   = "compaction under load"
	overhead     = "what the store and its daemon need besides"
)

// All is every goal, in the order of the table.
var All = []Goal{
	{What: "get, batches of 32, 10 M keys uniform", Group: inMemory, Row: "get, 2 threads, batch of 32", Published: fasterReads, Target: 4, Beyond: 6},
	{What: "put in place, batches of 32, 10 M keys uniform", Group: inMemory, Row: "put in place, 2 threads, batch of 32", Published: fasterWrites, Target: 4, Beyond: 6},
	{What: "get, one at a time, 2 threads", Group: inMemory, Row: "get, 2 threads, single", Published: fasterReads, Target: 0.8, Beyond: 1},
	{What: "get, one at a time, 1 thread", Group: inMemory, Row: "get, 1 thread, single", Published: fasterOne, Target: 0.8, Beyond: 1},
	{What: "get, one at a time, to xsync", Group: "in process: get, 1 goroutine", Row: "get, 1 goroutine, rskv", Peer: "get, 1 goroutine, xsync", Target: 1.5, Beyond: 3},
	{What: "get, one at a time, to pebble", Group: "in process: get, 1 goroutine", Row: "get, 1 goroutine, rskv", Peer: "get, 1 goroutine, pebble", Target: 8, Beyond: 12},
	{What: "memory a key, 8 + 8 B, index and log", Group: inMemory, Row: "memory a key", Kind: Value, Target: 60, Beyond: 50, Less: true},
	{What: "get over the socket, P=128, 8 connections", Group: pipelined, Row: "get, rskvd", Target: 3.5, Beyond: 6},
	{What: "Go client, 64 goroutines", Group: oneClient, Row: "get, goroutines: 64, rskv", Peer: "get, goroutines: 64, valkey-go", Target: 2, Beyond: 4},
	{What: "Go client, 256 goroutines", Group: oneClient, Row: "get, goroutines: 256, rskv", Peer: "get, goroutines: 256, valkey-go", Target: 4, Beyond: 6},
	{What: "Go client, one caller", Group: oneClient, Row: "get, goroutines: 1, rskv", Peer: "get, goroutines: 1, valkey-go", Target: 1, Beyond: 1.5},
	{What: "put with sync, 1 client", Group: durable, Row: "put, rskvd, 1 at a time", Target: 1.2, Beyond: 1.6},
	{What: "put with sync, 50 clients", Group: durable, Row: "put, rskvd, 50 at a time", Target: 1.5, Beyond: 4},
	{What: "cold gets, values of 4000 B, 128 in flight", Group: fromDisk, Row: "get, io_uring, values of 4000 B", Target: 0.9, Beyond: 1},
	{What: "cold gets, values of 4000 B, processor time", Group: fromDisk, Row: "get, io_uring, values of 4000 B", Kind: CPU, Target: 1.2, Less: true},
	{What: "cold gets, values of 1000 B, 128 in flight", Group: fromDisk, Row: "get, io_uring, values of 1000 B", Target: 0.9, Beyond: 1},
	{What: "gets of zipf 0.99 at ten times the memory, read cache", Group: beyondMemory, Row: "get, zipf 0.99", Target: 3, Beyond: 4},
	{What: "pages written", Group: "pages written", Row: "put of new keys, engine", Target: 0.9, Beyond: 1},
	{What: "load of YCSB A while a checkpoint is made", Group: checkpoint, Row: "50 % reads, a snapshot checkpoint", Target: 0.8, Beyond: 0.95},
	{What: "writers held by a commit, p99.99", Group: held, Row: "write hold, p99.99", Kind: Value, Target: 1000, Beyond: 200, Less: true},
	{What: "recovery: log replayed", Group: recovery, Row: "open, log replayed", Kind: Value, Target: 1000},
	{What: "recovery: snapshot loaded", Group: recovery, Row: "open, snapshot loaded", Kind: Value, Target: 50},
	{What: "compaction at half live, write amplification", Group: compaction, Row: "write amplification", Kind: Value, Target: 2, Less: true},
	{What: "puts while compaction runs", Group: compaction, Row: "put, passes run", Target: 0.8},
	{What: "puts over the socket while compaction runs", Group: compaction, Row: "put over the socket, passes run", Target: 0.8},
	{What: "full collection of the Go heap, 16 GiB configured", Group: overhead, Row: "full collection of the Go heap", Kind: Value, Target: 10, Less: true},
	{What: "idle daemon, memory over what is configured", Group: overhead, Row: "idle daemon: memory over the budget", Kind: Value, Target: 30, Less: true},
	{What: "idle daemon, wake-ups a second", Group: overhead, Row: "idle daemon: wake-ups", Kind: Value, Target: 1, Less: true},
	{What: "put of 1 KB, 1 thread", Group: "write by size of value", Row: "put, 1 KB", Published: rustWrites, Target: 5, Beyond: 20},
	{What: "put of 1 KB, 1 thread, batches of 32", Group: "write by size of value", Row: "put, 1 KB, batches of 32", Published: rustWrites, Target: 5, Beyond: 20},
}
