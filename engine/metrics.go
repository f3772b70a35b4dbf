package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"rskv/engine/internal/record"
	"rskv/ioring"
)

// Stats is a snapshot of what a store is and has done since it was opened.
// Addresses are byte offsets in the log; all sizes are in bytes.
type Stats struct {
	Keys    int64  `json:"keys"`
	Version uint64 `json:"version"` // of the last commit
	Durable uint64 `json:"durable"` // of the last durable commit
	State   string `json:"state"`   // "ok", "disk full" or why writes are refused

	LogBegin    int64 `json:"log_begin"`
	LogHead     int64 `json:"log_head"`
	LogReadOnly int64 `json:"log_read_only"`
	LogFlushed  int64 `json:"log_flushed"`
	LogDurable  int64 `json:"log_durable"`
	LogTail     int64 `json:"log_tail"`

	Memory         int64 `json:"memory"`           // the budget
	MemoryIndex    int64 `json:"memory_index"`     // that it can have taken by now
	MemoryIndexMax int64 `json:"memory_index_max"` // that it may take
	MemoryLog      int64 `json:"memory_log"`
	MemoryBuffers  int64 `json:"memory_buffers"`
	MemoryTimers   int64 `json:"memory_timers"`     // of keys that expire
	MemoryOrdered  int64 `json:"memory_ordered"`    // the ordered index; 0: there is none
	MemoryCache    int64 `json:"memory_cache"`      // read cache
	MemoryPasses   int64 `json:"memory_compaction"` // while there is something to be compacted
	MemoryPeak     int64 `json:"memory_peak"`       // the most of these together since Open

	OrderedKeys int64 `json:"ordered_keys"` // in the ordered index, some perhaps gone
	OrderedUsed int64 `json:"ordered_used"` // of MemoryOrdered

	IndexBuckets      uint64 `json:"index_buckets"`
	IndexOverflow     uint64 `json:"index_overflow"`
	IndexOverflowSize uint64 `json:"index_overflow_max"`
	// IndexTagBits tell chains of one bucket apart. A doubling takes one; at 2 the
	// index does not grow further, and chains get longer instead.
	IndexTagBits   uint8  `json:"index_tag_bits"`
	IndexGrowing   bool   `json:"index_growing"`
	IndexDoublings uint64 `json:"index_doublings"` // since Open
	IndexLimit     string `json:"index_limit"`     // what keeps it from growing: "none", "memory", "tag" or "overflow"

	Reads      uint64 `json:"reads"`  // get, exists and ttl
	Writes     uint64 `json:"writes"` // everything else
	InPlace    uint64 `json:"writes_in_place"`
	Appended   uint64 `json:"writes_appended"`
	Retries    uint64 `json:"retries"`
	SpaceWaits uint64 `json:"space_waits"`
	Expired    uint64 `json:"expired"` // records met that had expired

	// Of the keys that expire: those in memory that were counted out, timers, timers
	// for which there was no memory, bytes of log that have expired, and that will;
	// and what the store's clock shows, ms since 1970.
	ExpirySwept   uint64 `json:"expiry_swept"`
	ExpiryTimers  int    `json:"expiry_timers"`
	ExpiryDropped uint64 `json:"expiry_timers_dropped"`
	ExpiredBytes  int64  `json:"expired_bytes"`
	ExpiringBytes int64  `json:"expiring_bytes"`
	Clock         int64  `json:"clock"`

	// The read cache: reads beyond the memory that it has answered, and those that the
	// device has; copies in it and their bytes; records that came in and went.
	CacheOn       bool   `json:"cache_on"`
	CacheHits     uint64 `json:"cache_hits"`
	CacheMisses   uint64 `json:"cache_misses"`
	CacheRecords  int64  `json:"cache_records"`
	CacheBytes    int64  `json:"cache_bytes"`
	CacheInserted uint64 `json:"cache_inserted"`
	CacheEvicted  uint64 `json:"cache_evicted"`

	ColdReads  uint64 `json:"cold_reads"` // reads of the device for records
	ColdBytes  uint64 `json:"cold_bytes"`
	ReadErrors uint64 `json:"read_errors"`
	Corrupt    uint64 `json:"corrupt_records"`

	LogAppended uint64 `json:"log_appended"`
	LogFreed    int64  `json:"log_freed"`   // byte address below which the disk is free
	LiveBytes   int64  `json:"live_bytes"`  // of records, estimated
	DeadBytes   int64  `json:"dead_bytes"`  // of the log, estimated
	DiskUsed    int64  `json:"disk_used"`   // log and checkpoints
	DiskBudget  int64  `json:"disk_budget"` // 0: none
	Compactions uint64 `json:"compactions"` // passes that ended well
	CompactErr  uint64 `json:"compactions_failed"`
	Scanned     uint64 `json:"compact_scanned_bytes"`
	IndexSwept  uint64 `json:"index_entries_removed"`
	Moved       uint64 `json:"compact_copied_bytes"`
	Forwarded   uint64 `json:"forwarded_bytes"` // copied to stay in memory
	// LastPass is the last pass that ended well; all zero: none has since Open.
	LastPass PassStats `json:"last_pass"`
	// WriteAmplification is how many bytes of log were written for one that users
	// appended.
	WriteAmplification float64 `json:"write_amplification"`
	NextCompaction     string  `json:"next_compaction"` // why one would start now, or not
	Warmed             uint64  `json:"warmed_bytes"`    // of log loaded in the background after Open

	Sessions        int    `json:"sessions"` // that can be resumed
	Commits         uint64 `json:"commits"`
	Checkpoints     uint64 `json:"checkpoints"`
	CheckpointErr   uint64 `json:"checkpoints_failed"`
	Checkpointing   bool   `json:"checkpoint_in_progress"`
	CheckpointBytes int64  `json:"checkpoint_bytes"`  // of all that are kept, besides the log
	ReplayBytes     int64  `json:"replay_bytes"`      // of log that a recovery would replay now
	HoldP50         int64  `json:"write_hold_p50_ns"` // how long a commit held writes
	HoldP9999       int64  `json:"write_hold_p9999_ns"`
	HoldMax         int64  `json:"write_hold_max_ns"`
	DeviceReads     uint64 `json:"device_reads"`
	DeviceWrites    uint64 `json:"device_writes"`
	DeviceRead      uint64 `json:"device_read_bytes"`
	DeviceWritten   uint64 `json:"device_written_bytes"`
	DeviceSyncs     uint64 `json:"device_syncs"`
	DeviceErrors    uint64 `json:"device_errors"`

	// How long the device took.
	ReadTimes  ioring.Times `json:"-"`
	WriteTimes ioring.Times `json:"-"`
	SyncTimes  ioring.Times `json:"-"`
}

// work counts what users have asked of a session. Each session has its own, and
// Stats adds them up: with one for all, sessions on different processors would take
// its cache line from each other in every batch. Atomic; written by the owner.
type work struct {
	reads, writes, inPlace, appended, retries, expired atomic.Uint64
}

// workSum is the work of several sessions.
type workSum struct {
	reads, writes, inPlace, appended, retries, expired uint64
}

func (sum *workSum) add(w *work) {
	sum.reads += w.reads.Load()
	sum.writes += w.writes.Load()
	sum.inPlace += w.inPlace.Load()
	sum.appended += w.appended.Load()
	sum.retries += w.retries.Load()
	sum.expired += w.expired.Load()
}

// worked is the work of all sessions there are and have been.
func (s *Store) worked() workSum {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := s.mu.worked
	for n := range s.mu.sessions {
		sum.add(&n.work)
	}
	return sum
}

// counters are the store's own.
type counters struct {
	sweptKeys         atomic.Uint64 // that had expired
	spaceWaits        atomic.Uint64
	coldReads         atomic.Uint64
	cacheHits         atomic.Uint64
	cacheMisses       atomic.Uint64 // reads that were answered from the device
	coldBytes         atomic.Uint64
	readErrors        atomic.Uint64
	corrupt           atomic.Uint64
	commits           atomic.Uint64
	checkpoints       atomic.Uint64
	checkpointsFailed atomic.Uint64
	replayFrom        atomic.Uint64 // address a recovery would replay from, in units
	imaged            atomic.Uint64 // start of the newest image that is durable, in units
	warmed            atomic.Uint64
	moved             atomic.Uint64
	forwarded         atomic.Uint64
	movedRecords      atomic.Uint64
	compactScanned    atomic.Uint64
	swept             atomic.Uint64 // index entries removed
	compactions       atomic.Uint64
	compactionsFailed atomic.Uint64
	freed             atomic.Uint64 // address below which segments have been freed, in units
	checkpointBytes   atomic.Int64  // of all checkpoints kept
	snapshotBytes     atomic.Int64  // of the snapshot that is being written
	starved           atomic.Int64  // sessions on the starved list
	released          atomic.Uint64 // how often memory came back

	holds struct {
		sync.Mutex
		histogram *hdrhistogram.Histogram // nanoseconds; guarded by the mutex
	}
}

const holdMax = int64(time.Minute)

// hold records how long a closed door held writers.
func (c *counters) hold(d time.Duration) {
	c.holds.Lock()
	defer c.holds.Unlock()
	if c.holds.histogram == nil {
		c.holds.histogram = hdrhistogram.New(1, holdMax, 2)
	}
	// The value is in range, so recording cannot fail.
	_ = c.holds.histogram.RecordValue(min(max(int64(d), 1), holdMax))
}

// tally counts what a session does until it is flushed into its work.
type tally struct {
	inPlace, appended, retries uint64
	hot                        uint64 // reads that no batch counts
	moved, movedRecords        uint64 // bytes and records that compaction has copied; chunks are bytes only
	forwarded                  uint64 // bytes copied to stay in memory
	expired                    uint64 // records met that had expired
	cacheHits                  uint64
	cold                       uint64 // reads answered from the device
}

// hotFlush is how many single reads a session counts before they show.
const hotFlush = 64

// flush counts ops, and what has been done for them.
func (s *Session) flush(ops []Op) {
	t, w := &s.tally, &s.work
	if t.cacheHits > 0 { // by these it is judged
		s.store.stats.cacheHits.Add(t.cacheHits)
	}
	if !ioring.Counting {
		*t = tally{}
		return
	}
	reads, writes := t.hot, uint64(0)
	for i := range ops {
		switch kind := ops[i].Kind; {
		case kind <= OpTTL:
			reads++
		case kind < opMove: // what is behind is no user's
			writes++
		}
	}
	for _, count := range [...]struct {
		to *atomic.Uint64
		n  uint64
	}{
		{&w.reads, reads}, {&w.writes, writes}, {&w.inPlace, t.inPlace}, {&w.appended, t.appended},
		{&w.retries, t.retries}, {&w.expired, t.expired}, {&s.store.stats.moved, t.moved},
		{&s.store.stats.movedRecords, t.movedRecords}, {&s.store.stats.forwarded, t.forwarded},
		{&s.store.stats.cacheMisses, t.cold},
	} {
		if count.n > 0 {
			count.to.Add(count.n)
		}
	}
	*t = tally{}
}

// Stats returns a snapshot. Sessions are opened and closed before or after it;
// operations do not wait for it.
func (s *Store) Stats() Stats {
	c, w, dev, idx := &s.stats, s.worked(), s.dev.Counters(), s.index.Stats()
	st := Stats{
		Keys: s.Len(), Version: s.ledgers.version.Load(), Durable: s.commit.durable.Load(), State: "ok",
		LogBegin: s.log.Begin().Bytes(), LogHead: s.log.Head().Bytes(), LogReadOnly: s.log.ReadOnly().Bytes(),
		LogFlushed: s.log.Flushed().Bytes(), LogDurable: s.log.Durable().Bytes(), LogTail: s.log.Tail().Bytes(),
		Memory: s.Memory(), MemoryIndex: idx.Bytes, MemoryIndexMax: s.indexShare(),
		MemoryLog: s.log.Memory(), MemoryBuffers: s.budget.buffers,
		IndexBuckets: uint64(idx.Buckets), IndexOverflow: uint64(idx.OverflowUsed), IndexOverflowSize: uint64(idx.OverflowMax),
		IndexTagBits: idx.TagBits, IndexGrowing: idx.Growing, IndexDoublings: idx.Doublings, IndexLimit: idx.Limit.String(),
		Reads: w.reads, Writes: w.writes, InPlace: w.inPlace, Appended: w.appended,
		Retries: w.retries, SpaceWaits: c.spaceWaits.Load(),
		ColdReads: c.coldReads.Load(), ColdBytes: c.coldBytes.Load(), ReadErrors: c.readErrors.Load(), Corrupt: c.corrupt.Load(),
		Expired: w.expired, LogAppended: s.log.Appended(), Warmed: c.warmed.Load(), Commits: c.commits.Load(), Sessions: s.ledgers.size(),
		Checkpoints: c.checkpoints.Load(), CheckpointErr: c.checkpointsFailed.Load(),
		ReplayBytes: s.settled().Bytes() - record.Addr(c.replayFrom.Load()).Bytes(),
		DeviceReads: dev.Reads, DeviceWrites: dev.Writes, DeviceRead: dev.ReadBytes, DeviceWritten: dev.WriteBytes,
		DeviceSyncs: dev.Syncs, DeviceErrors: dev.Errors,
		ReadTimes: dev.ReadTimes, WriteTimes: dev.WriteTimes, SyncTimes: dev.SyncTimes,
	}
	if s.order.tree != nil {
		o := s.order.tree.Stats()
		st.MemoryOrdered, st.OrderedKeys, st.OrderedUsed = s.memory.order.Load(), o.Keys, o.Used
	}
	st.LogFreed, st.LiveBytes = record.Addr(c.freed.Load()).Bytes(), s.liveLog()
	st.ExpirySwept, st.ExpiryTimers, st.ExpiryDropped = c.sweptKeys.Load(), s.sweep.wheel.Len(), s.sweep.dropped.Load()
	st.Clock, st.MemoryTimers = s.clock.now(), s.sweep.wheel.Bytes()
	st.ExpiredBytes, st.ExpiringBytes = s.sweep.expiring.sum(st.Clock)
	st.MemoryPasses, st.MemoryPeak = s.memory.passes.Load(), s.notePeak()
	st.Checkpointing, st.CheckpointBytes = s.checkpoints.running.Load(), c.checkpointBytes.Load()
	if p := s.compaction.last.Load(); p != nil {
		st.LastPass = *p
	}
	n := s.cache.cache.Counts()
	st.CacheOn, st.MemoryCache = s.cache.cache.Shape().Ring > 0, s.memory.cache.Load()
	st.CacheHits, st.CacheMisses, st.CacheRecords, st.CacheBytes = c.cacheHits.Load(), c.cacheMisses.Load(), n.Copies, n.Bytes
	st.CacheInserted, st.CacheEvicted = n.Inserted, n.Evicted
	st.DiskUsed, st.DiskBudget = s.room.used(), s.room.budget.Load()
	st.Compactions, st.CompactErr = c.compactions.Load(), c.compactionsFailed.Load()
	st.IndexSwept = c.swept.Load()
	st.Scanned, st.Moved, st.Forwarded = c.compactScanned.Load(), c.moved.Load(), c.forwarded.Load()
	st.WriteAmplification = 1
	if copied := st.Moved + st.Forwarded; st.LogAppended > copied {
		users := st.LogAppended - copied
		st.WriteAmplification = float64(st.LogAppended) / float64(users)
	}
	e := s.EstimateGC()
	st.DeadBytes, st.NextCompaction = e.Reclaimable, e.Reason
	if err := s.Err(); err != nil {
		st.State = err.Error()
	} else if s.Full() != nil {
		st.State = "disk full"
	}
	c.holds.Lock()
	defer c.holds.Unlock()
	if h := c.holds.histogram; h != nil {
		st.HoldP50, st.HoldP9999, st.HoldMax = h.ValueAtQuantile(50), h.ValueAtQuantile(99.99), h.Max()
	}
	return st
}
