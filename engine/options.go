package engine

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/bits"
	"time"

	"rskv/engine/internal/cache"
	"rskv/engine/internal/hlog"
	"rskv/engine/internal/index"
	"rskv/engine/internal/record"
	"rskv/ioring"
)

const (
	// MaxKey is the largest key in bytes; the record header has 16 bits for it.
	MaxKey = record.MaxKey
	// MaxValueDefault is the largest value in bytes unless Options say less.
	MaxValueDefault = 16 << 20
	// MemoryMin is the smallest memory budget in bytes.
	MemoryMin = 32 << 20
	// MemoryDefault is the budget when none is given.
	MemoryDefault = 1 << 30
	// CommitIntervalDefault bounds what a crash can take that nobody synced.
	CommitIntervalDefault = time.Second

	pageSizeDefault    = 1 << 20
	pageSizeMin        = 256 << 10 // holds the largest inline record
	pageSizeMax        = 4 << 20
	segmentSizeDefault = 64 << 20
	indexBitsMin       = 6
	indexBitsMax       = 36
)

// Options of Open. The zero value and a Dir are enough.
type Options struct {
	// Dir is the directory of the store; it is created if it is missing. It is
	// ignored when Device is set.
	Dir string
	// Device holds the store; nil opens Dir. Close closes it in both cases.
	Device ioring.Device
	// IO chooses the backend for Dir.
	IO ioring.Mode

	// Memory is the one budget, in bytes: index, log pages and I/O buffers
	// together. At least MemoryMin; default MemoryDefault.
	Memory int64
	// PageSize is the log page in bytes, a power of two from 256 KiB to 4 MiB;
	// default 1 MiB. It is fixed when the store is created.
	PageSize int
	// SegmentSize is the size of a log file in bytes, a power of two of at
	// least PageSize and at most 1 GiB; default 64 MiB. It is fixed when the store is created.
	SegmentSize int64
	// IndexBits is log2 of the number of 64-byte index buckets to begin with, 6
	// to 36; 0 takes a 64th of Memory. The index doubles at about four keys
	// a bucket, as far as its part of Memory goes: see Stats.MemoryIndexMax. It
	// can double 13 times before it has to be made anew from the log, by an Open
	// with more IndexBits. A store that had more comes back with them.
	IndexBits int
	// Ordered keeps the live keys in their order too, in memory: Scan returns them
	// in it, and costs what it returns. The ordered index takes 15 to 20 bytes a key
	// and what the key has that its neighbours have not, out of Memory, up to 5/8 of
	// it; Open reads the whole log to fill it. It is not stored: a store may be
	// opened with or without.
	Ordered bool
	// MaxValue is the largest value in bytes, at most MaxValueDefault.
	MaxValue int
	// CommitInterval is how often what was written becomes durable without
	// being asked; default one second, negative only when asked.
	CommitInterval time.Duration

	// CheckpointDistance is how much log in bytes a recovery may have to replay
	// before an index snapshot is taken; default 1 GiB, negative only when asked.
	CheckpointDistance int64
	// CheckpointsKept is how many checkpoints stay, 1 to 1000; default 3.
	CheckpointsKept int
	// RecoverVersion, if not 0, opens the store as of a checkpoint that was
	// kept, and discards everything newer for good.
	RecoverVersion uint64

	// ColdStart leaves the memory empty after Open. Otherwise the newest pages of
	// the log are loaded in the background, as far as memory reaches.
	ColdStart bool

	// LiveRatio is the share of the log, 0 to 1, that has to be live for compaction
	// not to run by itself; default 0.5, negative: only for the disk budget's sake
	// and when asked.
	LiveRatio float64
	// Disk is how much the store may take on disk in bytes, at least eight
	// segments: log, checkpoints, and what compaction needs to work. Writes wait
	// for compaction near it, and fail with ErrDiskFull when everything in it is
	// live. 0: no limit.
	Disk int64

	// Ledgers is how many ledgers are kept, 1 to LedgersDefault; LedgerExpiry
	// how long one that nobody uses, default a day.
	Ledgers      int
	LedgerExpiry time.Duration

	// Clock and Runner default to the machine's clock and to goroutines.
	Clock  Clock
	Runner Runner
	// Random fills identities and the hash seed; default crypto/rand.
	Random io.Reader
	// Progress, if set, is told on Open's goroutine how far it has come, several
	// times a second at most. It must not block.
	Progress func(Progress)
	// Logger receives what an operator should know; nil: nothing.
	Logger *slog.Logger

	// logPagesMax bounds the pages of the log in memory, whatever Memory says. A
	// simulation keeps it small, so that much happens beyond it.
	logPagesMax int
	// cacheShape, if set, is the read cache's from the beginning on, whether it is of
	// use or not. A simulation has it small, so that much goes out again.
	cacheShape *cache.Shape
}

// check fills defaults and reports every problem at once.
func (o *Options) check() error {
	def(&o.Memory, MemoryDefault)
	def(&o.PageSize, pageSizeDefault)
	def(&o.SegmentSize, segmentSizeDefault)
	def(&o.MaxValue, MaxValueDefault)
	def(&o.CommitInterval, CommitIntervalDefault)
	def(&o.IO, ioring.Auto)
	def(&o.CheckpointDistance, CheckpointDistanceDefault)
	def(&o.CheckpointsKept, CheckpointsKeptDefault)
	def(&o.LiveRatio, LiveRatioDefault)
	def(&o.Ledgers, LedgersDefault)
	def(&o.LedgerExpiry, LedgerExpiryDefault)
	def(&o.logPagesMax, hlog.PagesMax)
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.Clock == nil {
		o.Clock = SystemClock()
	}
	if o.Runner == nil {
		o.Runner = GoRunner()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	var errs []error
	bad := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrBadOptions}, args...)...))
	}
	if o.Dir == "" && o.Device == nil {
		bad("no directory")
	}
	if o.Memory < MemoryMin {
		errs = append(errs, fmt.Errorf("%w: %d bytes, at least %d", ErrMemoryTooSmall, o.Memory, int64(MemoryMin)))
	}
	if o.PageSize < pageSizeMin || o.PageSize > pageSizeMax || o.PageSize&(o.PageSize-1) != 0 {
		bad("page size %d: want a power of two from %d to %d", o.PageSize, pageSizeMin, pageSizeMax)
	}
	if o.SegmentSize < int64(o.PageSize) || o.SegmentSize > 1<<30 || o.SegmentSize&(o.SegmentSize-1) != 0 {
		bad("segment size %d: want a power of two from the page size to 1 GiB", o.SegmentSize)
	}
	if o.IndexBits != 0 && (o.IndexBits < indexBitsMin || o.IndexBits > indexBitsMax) {
		bad("index bits %d: want %d to %d", o.IndexBits, indexBitsMin, indexBitsMax)
	}
	if o.MaxValue < 1 || o.MaxValue > MaxValueDefault {
		bad("largest value %d: want 1 to %d", o.MaxValue, MaxValueDefault)
	}
	if o.CheckpointsKept < 1 || o.CheckpointsKept > 1000 {
		bad("%d checkpoints kept: want 1 to 1000", o.CheckpointsKept)
	}
	if o.Ledgers < 1 || o.Ledgers > LedgersDefault {
		bad("%d ledgers: want 1 to %d", o.Ledgers, LedgersDefault)
	}
	if o.LiveRatio > 1 {
		bad("live ratio %g: want at most 1", o.LiveRatio)
	}
	if o.Disk < 0 {
		bad("disk budget of %d bytes: want 0 for none, or a size", o.Disk)
	}
	if o.LedgerExpiry < 0 {
		bad("ledger expiry %v: want a positive duration", o.LedgerExpiry)
	}
	return errors.Join(errs...)
}

func def[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// budget is how Memory is divided; the log has the rest, see memory.go.
type budget struct {
	index   int64 // the most that hash table and overflow buckets may take, bytes
	buffers int64 // staging memory of the device, bytes
}

// divide splits the memory. indexBits is the size the index needs at least; it may
// have more if that leaves a log. What index and buffers do not take is log.
func divide(memory int64, pageSize, indexBits int) (budget, error) {
	b := budget{index: indexBytes(indexBits), buffers: bufferBytes(memory)}
	logMin := int64(hlog.PagesMin * pageSize)
	if need := b.index + b.buffers + logMin; memory < need {
		return b, fmt.Errorf("%w: %d bytes, this store needs %d (index %d, buffers %d, %d log pages of %d)",
			ErrMemoryTooSmall, memory, need, b.index, b.buffers, hlog.PagesMin, pageSize)
	}
	part := min(memory*indexPart/indexWhole, memory-b.buffers-logMin)
	b.index = max(b.index, indexBytes(indexBitsWithin(part)))
	return b, nil
}

// bufferBytes is the staging memory that goes with a budget.
func bufferBytes(memory int64) int64 { return min(max(memory/16, 2<<20), 64<<20) }

// The index may grow to 5/8 of the memory: a table of a half, and a quarter of that
// in overflow buckets. That is 50 million keys in a GiB. It takes what it needs
// from the log, when it needs it.
const (
	indexPart  = 5
	indexWhole = 8
	// indexOverflow is how many overflow buckets even the smallest index may have.
	indexOverflow = 1024
	// indexFirst is the share of the memory that the first index may take. It is
	// small, so that a daemon with few keys is, but not smaller: from there to its
	// largest size the table doubles 5 times, each time at the price of a bit of
	// its tags. With 10 bits left one look-up in 250 meets a chain that is not its
	// own; from a thousandth of the memory it would be one in 16, each of them a
	// read of the device for an absent key of a cold store.
	indexFirst = 64
)

// indexBytes is what an index of that size takes at most.
func indexBytes(bits int) int64 { return index.Footprint(uint8(bits), indexOverflow) }

// indexBitsWithin is the size of the largest index that fits, or the smallest.
func indexBitsWithin(bytes int64) int {
	n := indexBitsMin
	for n < indexBitsMax && indexBytes(n+1) <= bytes {
		n++
	}
	return n
}

// indexBitsFor is log2 of the buckets that an index begins with.
func indexBitsFor(memory int64) int {
	return max(indexBitsMin, bits.Len64(uint64(memory/indexFirst/64))-1)
}
