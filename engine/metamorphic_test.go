package engine

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"rskv/engine/internal/cache"
	"rskv/engine/internal/hlog"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

var (
	metaSeed  = flag.Uint64("metamorphic.seed", 0, "run this seed of TestMetamorphic only; 0 draws")
	metaSeeds = flag.Int("metamorphic.seeds", 0, "how many seeds TestMetamorphic runs; 0: as many as suit the other tests")
)

// The metamorphic test. One sequence of operations is drawn from a seed, and run by
// one session on a store of each of several configurations that are drawn too. None
// of what is configured may be seen in an answer. The test has no model: what the
// first configuration answers is what all others must answer.
//
// The clocks run. So that no answer depends on how long anything takes, time passes
// in units that are longer than the test, and what expires does so half a unit after
// one begins:
//
//	|--- operations ---|--- expiry ---|--- operations ---|--- ...
//	0                 1/2             1
const (
	metaUnit   = int64(2 * time.Hour / time.Millisecond)
	metaValues = 1 << 20 // MaxValue
	metaKeys   = 2500
	metaHot    = 150 // of them are used all the time
)

// metaClock is the machine's clock, which can be put forward.
type metaClock struct {
	Clock
	ahead atomic.Int64 // ms
}

func (c *metaClock) Wall() int64      { return c.Clock.Wall() + c.ahead.Load() }
func (c *metaClock) Monotonic() int64 { return c.Clock.Monotonic() + int64(ms(c.ahead.Load())) }

// metaRunner has as many tasks at a time as it is told.
type metaRunner struct {
	Runner
	parallel int
}

func (r metaRunner) Parallel() int { return r.parallel }

// metaConfig is what must not be seen.
type metaConfig struct {
	device   string // "memory", or the mode of a real one
	buffered bool   // by the page cache of the system
	queue    int    // of the device
	pageSize int
	segment  int64
	memory   [2]int64 // SetMemory changes between them
	logPages int      // at most; 0: what the memory holds
	bits     int      // of the index
	ordered  bool
	cache    *cache.Shape // of the read cache; nil: as the store likes
	interval time.Duration
	ratio    float64
	distance int64
	warm     bool
	procs    int
	parallel int
	way      int    // how batches are given to the session, see metaRun.do
	seed     uint64 // of what the configuration draws while it runs
}

func (c *metaConfig) String() string {
	plain := *c
	plain.cache = nil
	s := fmt.Sprintf("%+v", plain)
	if c.cache != nil {
		s += fmt.Sprintf(" read cache %+v", *c.cache)
	}
	return s
}

// drawMeta draws a configuration. What every seed has to have is at number 1: little
// memory, a small index, compaction, checkpoints; and at number 2: a real disk.
func drawMeta(rng *rand.Rand, number int) *metaConfig {
	c := &metaConfig{
		device:   []string{"memory", string(ioring.PReadWrite), string(ioring.URing)}[rng.IntN(3)],
		buffered: rng.IntN(2) == 0, queue: 1 + rng.IntN(64),
		pageSize: pageSizeMin << rng.IntN(3),
		memory:   [2]int64{MemoryMin + rng.Int64N(16<<20), MemoryMin + rng.Int64N(32<<20)},
		bits:     indexBitsMin + rng.IntN(8), ordered: rng.IntN(2) == 0, cache: drawCache(rng, 1<<20),
		interval: []time.Duration{-1, time.Millisecond, 20 * time.Millisecond, time.Second}[rng.IntN(4)],
		ratio:    []float64{-1, 0.3, 0.5, 0.9}[rng.IntN(4)],
		distance: []int64{-1, 4 << 20, 32 << 20}[rng.IntN(3)],
		warm:     rng.IntN(2) == 0, procs: 1 << rng.IntN(3), parallel: 1 + rng.IntN(4),
		way: rng.IntN(3), seed: rng.Uint64(),
	}
	c.segment = int64(c.pageSize) << rng.IntN(4)
	if rng.IntN(4) > 0 {
		c.logPages = hlog.PagesMin + rng.IntN(8)
	}
	if number == 1 {
		c.pageSize, c.logPages, c.bits, c.ratio, c.distance = pageSizeMin, hlog.PagesMin+rng.IntN(8), indexBitsMin, 0.9, 4<<20
		c.cache = &cache.Shape{Ring: 1 << 20, Rows: 2048}
	}
	if number == 2 {
		c.device = []string{string(ioring.PReadWrite), string(ioring.URing)}[rng.IntN(2)]
	}
	if ok, _ := ioring.Probe(); !ok && c.device == string(ioring.URing) {
		c.device = string(ioring.PReadWrite)
	}
	return c
}

// metaStep is a batch, or something else that is done with the store at rest.
type metaStep struct {
	what  string
	ops   []Op
	asked []metaAsked // of each op
	scan  ScanOptions
}

// metaAsked is what is to be told of an op besides its answer.
type metaAsked struct {
	what string
	seen *uint64 // what the function of an update has seen
}

// metaChores are the steps that are no batches. Each comes in its turn, and besides
// in one step of so many.
var metaChores = []struct {
	what string
	in   int
}{
	{"time", 40}, {"sync", 40}, {"checkpoint", 100}, {"compact", 200}, {"compact half", 100},
	{"memory", 50}, {"open", 150}, {"scan", 200}, {"range", 100}, {"count", 150},
}

// metaPlan draws the steps. It knows no answers, so it draws the same for all.
type metaPlan struct {
	rng     *rand.Rand
	last    [metaKeys]metaValue // that was put, or tried to
	version uint64
	loaded  int // keys so far
	steps   int // after that
}

type metaValue struct {
	version uint64
	size    int
}

func (p *metaPlan) key(i int) []byte {
	b := fmt.Appendf(nil, "%02x/%d", uint64(i)*0x9e3779b97f4a7c15>>59, i)
	if i%7 == 0 { // keys of several lengths
		b = append(b, bytes.Repeat([]byte{'k'}, i%97)...)
	}
	return b
}

// value draws a new value of key i. Counters are every tenth.
func (p *metaPlan) value(i int) []byte {
	most := []int{9, 100, 100, 100, 100, 100, 4000, 4000, 20_000, 20_000}[p.rng.IntN(10)]
	if p.rng.IntN(40) == 0 {
		most = 300_000
	}
	p.version++
	v := metaValue{p.version, p.rng.IntN(most)}
	if last := p.last[i]; p.rng.IntN(3) == 0 && last.version != 0 {
		v.size = last.size // in place
	}
	if i%10 == 0 {
		v.size = 8
	}
	p.last[i] = v
	return valueOf(uint64(i), v.version, v.size)
}

func (p *metaPlan) pick() int {
	if p.rng.IntN(2) == 0 {
		return p.rng.IntN(metaHot)
	}
	return p.rng.IntN(metaKeys)
}

// ttl draws a time to live that ends in the second half of a unit.
func (p *metaPlan) ttl() int64 { return p.rng.Int64N(5)*metaUnit + metaUnit/2 }

// step draws the next step: first every key is put once.
func (p *metaPlan) step() *metaStep {
	if p.loaded < metaKeys {
		s := &metaStep{what: "load"}
		for ; p.loaded < metaKeys && len(s.ops) < 64; p.loaded++ {
			s.add(&Op{Kind: OpPut, Key: p.key(p.loaded), Value: p.value(p.loaded)}, nil)
		}
		return s
	}
	p.steps++
	for i, chore := range metaChores {
		if p.steps%12 == 0 && p.steps/12%len(metaChores) == i || p.rng.IntN(chore.in) == 0 {
			s := &metaStep{what: chore.what}
			if chore.what == "range" {
				s.scan = p.scan()
			}
			return s
		}
	}
	s := &metaStep{what: "batch"}
	for range 1 + p.rng.IntN(1+p.rng.IntN(100)) {
		op, seen := p.operation()
		s.add(&op, seen)
	}
	return s
}

func (s *metaStep) add(op *Op, seen *uint64) {
	what := fmt.Sprintf("%s of %.20q, %d bytes", simOpName(op), op.Key, len(op.Value))
	if op.TTL != 0 {
		what += fmt.Sprintf(", for %d", op.TTL)
	}
	s.ops, s.asked = append(s.ops, *op), append(s.asked, metaAsked{what, seen})
}

// scan draws a part of the keys.
func (p *metaPlan) scan() (o ScanOptions) {
	if p.rng.IntN(2) == 0 {
		o.Prefix = p.key(p.pick())[:1+p.rng.IntN(3)]
	}
	if p.rng.IntN(2) == 0 {
		o.From = p.key(p.pick())
	}
	if p.rng.IntN(2) == 0 {
		o.To = p.key(p.pick())
	}
	return o
}

// operation draws an operation; seen is what an update's function writes.
func (p *metaPlan) operation() (op Op, seen *uint64) {
	i := p.pick()
	op.Key = p.key(i)
	switch n := p.rng.IntN(100); {
	case n < 28:
		op.Kind = OpGet
	case n < 33:
		op.Kind = OpExists
	case n < 39:
		op.Kind = OpTTL
	case n < 56:
		op.Kind, op.Value = OpPut, p.value(i)
	case n < 61:
		op.Kind, op.If, op.Value = OpPut, []Cond{IfAbsent, IfPresent}[p.rng.IntN(2)], p.value(i)
	case n < 67:
		op.Kind, op.Blind = OpDelete, p.rng.IntN(3) == 0
	case n < 75:
		p.compareAndSwap(i, &op)
	case n < 81:
		op.Kind, op.Delta = OpAdd, p.rng.Int64()>>p.rng.IntN(64)
		if p.rng.IntN(4) > 0 {
			op.Key = p.key(i / 10 * 10) // a counter
		}
	case n < 87:
		op.Kind, op.Value = OpAppend, valueOf(uint64(i), p.version, 8*p.rng.IntN(400))
	case n < 92:
		op.Kind = OpUpdate
		op.Fn, seen = p.update(uint64(i))
	case n < 98:
		op.Kind = OpExpire
		if p.rng.IntN(3) > 0 {
			op.TTL = p.ttl()
		}
		return op, nil
	default:
		return p.bad(op.Key), nil
	}
	if op.takesTTL() && p.rng.IntN(5) == 0 {
		op.TTL = p.ttl()
	}
	return op, seen
}

// compareAndSwap draws an old value that may be the present one.
func (p *metaPlan) compareAndSwap(i int, op *Op) {
	op.Kind = OpCompareAndSwap
	last := p.last[i]
	if op.OldAbsent = p.rng.IntN(4) == 0; !op.OldAbsent {
		op.Old = valueOf(uint64(i), last.version, last.size)
	}
	if op.NewAbsent = p.rng.IntN(4) == 0; !op.NewAbsent {
		op.Value = p.value(i)
	}
}

// update returns a function that does what the old value says, and notes it.
func (p *metaPlan) update(key uint64) (UpdateFunc, *uint64) {
	seen := new(uint64)
	p.version++
	version := p.version
	return func(old []byte, found bool) ([]byte, Verdict) {
		sum := xxhash.Sum64(old)
		if *seen = sum; !found {
			*seen = 1
		}
		if v := Verdict(sum % 3); v != Replace {
			return nil, v
		}
		return valueOf(key, version, int(sum%6000)), Replace
	}, seen
}

// bad draws an operation that must be refused.
func (p *metaPlan) bad(key []byte) Op {
	ops := []Op{
		{Kind: OpPut}, {Kind: OpGet, Key: make([]byte, MaxKey+1)}, {Key: key}, {Kind: OpUpdate, Key: key},
		{Kind: OpPut, Key: key, Value: make([]byte, metaValues+1)},
		{Kind: OpExists, Key: key, TTL: 1}, {Kind: OpPut, Key: key, TTL: -1}, {Kind: OpExpire, Key: key, TTL: MaxTTL + 1},
		{Kind: OpAdd, Key: p.key(0), Delta: math.MaxInt64}, {Kind: OpAdd, Key: p.key(0), Delta: math.MaxInt64}, // the second at the latest
	}
	return ops[p.rng.IntN(len(ops))]
}

// metaAnswer is what is compared.
type metaAnswer struct {
	what  string
	found bool
	n     int64
	sum   uint64 // of the value
	err   string
}

// answerOf is the part of an op's answer that means something.
func answerOf(op *Op, asked metaAsked) metaAnswer {
	a := metaAnswer{what: asked.what}
	if op.Err != nil {
		a.err = op.Err.Error()
		return a
	}
	a.found = op.Found && !op.Blind
	switch op.Kind {
	case OpGet:
		if op.Found {
			a.n, a.sum = int64(len(op.Value)), xxhash.Sum64(op.Value)
		}
	case OpTTL:
		if a.n = -1; op.Found && op.Int >= 0 {
			a.n = op.Int / metaUnit
		}
	case OpAdd, OpAppend:
		a.n = op.Int
	case OpUpdate:
		a.sum = *asked.seen
	}
	return a
}

// metaWork is what was done behind the answers: without it the test is worth nothing.
type metaWork struct {
	cold, hits, compactions, moved, doublings, checkpoints, expired, refused uint64
}

func (w *metaWork) add(st Stats) {
	w.cold += st.ColdReads
	w.hits += st.CacheHits
	w.compactions += st.Compactions
	w.moved += st.Moved
	w.doublings += st.IndexDoublings
	w.checkpoints += st.Checkpoints
	w.expired += st.Expired + st.ExpirySwept
}

// metaRun is the sequence on one configuration.
type metaRun struct {
	*metaConfig
	t       *testing.T
	rng     *rand.Rand // for what must not be seen
	replay  string     // how to see it again
	plan    *metaPlan
	clock   *metaClock
	dir     string
	mem     *iotest.Mem // without a directory
	store   *Store
	session *Session
	want    []metaAnswer // nil: this is the first
	got     []metaAnswer
	work    *metaWork
}

// TestMetamorphic: an answer depends on the configuration.
func TestMetamorphic(t *testing.T) {
	seeds, configs, steps, how := 2, 4, 200, ""
	if testing.Short() || raceEnabled {
		seeds, configs, steps, how = 1, 4, 150, " -short"
	}
	if raceEnabled {
		configs = 3
	}
	first := *metaSeed
	if *metaSeeds > 0 {
		seeds = *metaSeeds
	}
	if first != 0 {
		seeds = 1
	} else {
		first = newSeed(t)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for i := range uint64(seeds) {
		seed := first + i
		replay := fmt.Sprintf("go test -run TestMetamorphic%s ./engine -metamorphic.seed %d", how, seed)
		rng := rand.New(rand.NewPCG(seed, 1))
		var want []metaAnswer
		var work metaWork
		for number := range configs {
			c := drawMeta(rng, number)
			r := &metaRun{
				metaConfig: c, t: t, rng: rand.New(rand.NewPCG(c.seed, 2)), replay: replay,
				plan: &metaPlan{rng: rand.New(rand.NewPCG(seed, 3))}, clock: &metaClock{Clock: SystemClock()}, dir: t.TempDir(), want: want, work: &work,
			}
			r.run(steps)
			if number == 0 {
				want = r.got
			}
		}
		t.Logf("seed %d: %d answers of each of %d configurations; behind them %+v", seed, len(want), configs, work)
		for what, n := range map[string]uint64{
			"reads of the disk": work.cold, "answers of the read cache": work.hits, "bytes that compaction copied": work.moved,
			"doublings of the index": work.doublings, "checkpoints": work.checkpoints, "expired keys": work.expired, "refused operations": work.refused,
		} {
			require.NotZero(t, n, "%s: %s", what, replay)
		}
	}
}

func (r *metaRun) run(steps int) {
	begin := time.Now()
	runtime.GOMAXPROCS(r.procs)
	r.open()
	for range steps + metaKeys/64 {
		r.step(r.plan.step())
	}
	r.everything()
	r.reopen()
	r.everything()
	r.close()
	r.must(r.clock.Clock.Monotonic() < metaUnit/2*int64(time.Millisecond), "it took longer than the half of a unit")
	r.must(r.want == nil || len(r.want) == len(r.got), "%d answers, want %d", len(r.got), len(r.want))
	r.t.Logf("%v in %v", r.metaConfig, time.Since(begin).Round(time.Millisecond))
}

// must ends the test unless ok, with what is needed to see it again.
func (r *metaRun) must(ok bool, format string, args ...any) {
	r.t.Helper()
	if !ok {
		r.t.Fatalf("%s\nof configuration %v\nafter %d answers; replay: %s", fmt.Sprintf(format, args...), r.metaConfig, len(r.got), r.replay)
	}
}

func (r *metaRun) open() {
	change := func(o *Options) {
		o.Clock, o.Runner = r.clock, metaRunner{GoRunner(), r.parallel}
		o.Memory, o.PageSize, o.SegmentSize, o.MaxValue = r.memory[0], r.pageSize, r.segment, metaValues
		o.IndexBits, o.Ordered, o.ColdStart = r.bits, r.ordered, !r.warm
		o.CommitInterval, o.LiveRatio, o.CheckpointDistance = r.interval, r.ratio, r.distance
		o.logPagesMax, o.cacheShape = r.logPages, r.cache
	}
	r.store = openOn(r.t, r.openDevice(), change)
	r.session = r.store.NewSession()
	r.session.SetOrdered(r.rng.IntN(2) == 0)
}

func (r *metaRun) openDevice() ioring.Device {
	buffers := bufferBytes(r.memory[0])
	if r.device == "memory" {
		if r.mem == nil {
			r.mem = iotest.NewMem(iotest.MemOptions{SegmentSize: r.segment, BufferBytes: buffers})
		} else {
			r.mem = r.mem.CrashImage(iotest.CrashOptions{})
		}
		return r.mem
	}
	dev, err := ioring.Open(ioring.Options{
		Dir: r.dir, Mode: ioring.Mode(r.device), SegmentSize: r.segment, BufferBytes: buffers,
		QueueDepth: r.queue, Workers: r.queue, NoDirect: r.buffered,
	})
	require.NoError(r.t, err)
	return dev
}

func (r *metaRun) close() {
	r.session.Close()
	r.work.add(r.store.Stats())
	err := r.store.Close()
	r.must(err == nil, "close: %v", err)
}

func (r *metaRun) reopen() {
	r.close()
	r.open()
}

// answer compares an answer with that of the first configuration.
func (r *metaRun) answer(a metaAnswer) {
	r.t.Helper()
	if r.want != nil {
		n := len(r.got)
		r.must(n < len(r.want), "there are only %d answers to compare with", len(r.want))
		r.must(a == r.want[n], "the first difference is answer %d:\n%+v, want\n%+v", n, a, r.want[n])
	}
	r.got = append(r.got, a)
}

// step does what the plan says.
func (r *metaRun) step(s *metaStep) {
	ctx, err := context.Background(), error(nil)
	switch s.what {
	case "time":
		r.clock.ahead.Add(metaUnit)
	case "sync":
		_, err = r.store.Sync(ctx)
	case "checkpoint":
		_, err = r.store.Checkpoint(ctx, CheckpointOptions{Kind: FullCheckpoint})
	case "compact":
		_, err = r.store.Compact(ctx, CompactOptions{})
	case "compact half":
		begin, tail := r.store.log.Begin(), r.store.log.Tail()
		_, err = r.store.Compact(ctx, CompactOptions{Until: (begin + (tail-begin)/2).Bytes()})
	case "memory":
		if err = r.store.SetMemory(r.memory[r.rng.IntN(2)]); errors.Is(err, ErrMemoryTooSmall) {
			err = nil // index and ordered index have it
		}
	case "open":
		r.reopen()
	case "scan", "range":
		r.scan(s.scan)
	case "count":
		var n Count
		n, err = r.store.LenExact(ctx)
		r.answer(metaAnswer{what: "count", n: n.Keys})
	default:
		r.batch(s)
	}
	r.must(err == nil, "%s: %v", s.what, err)
}

// batch gives the operations to the session: together, one by one, or without
// waiting for each. Their answers are compared in the order of the operations.
func (r *metaRun) batch(s *metaStep) {
	answers := make([]metaAnswer, len(s.ops))
	note := func(op *Op) {
		i := op.Tag
		answers[i] = answerOf(op, s.asked[i])
		if op.Err != nil {
			r.work.refused++
			r.must(ClassOf(op.Err) == ClassUser, "%s: %v", s.asked[i].what, op.Err)
		}
	}
	for i := range s.ops {
		s.ops[i].Tag = uint64(i)
	}
	for ops := s.ops; len(ops) > 0; {
		n := len(ops)
		if r.way > 0 {
			n = 1 + r.rng.IntN(n)
		}
		if r.way == 1 {
			r.session.Start(ops[:n])
		} else {
			r.session.Do(ops[:n])
		}
		for i := range ops[:n] {
			if !ops[i].Pending() {
				note(&ops[i])
			}
		}
		ops = ops[n:]
	}
	r.session.wait(note)
	for _, a := range answers {
		r.answer(a)
	}
}

// scan answers with the keys and values of a part of the store, sorted: by the
// store if it is in order, which is then looked at in both directions.
func (r *metaRun) scan(opt ScanOptions) {
	var keys []string
	var values map[string][]byte
	if r.ordered {
		opt.Count = 1 + r.rng.IntN(500)
		opt.Reverse = r.rng.IntN(2) == 0
		all, _ := inOrder(r.t, r.store, opt)
		values = map[string][]byte{}
		for _, e := range all {
			values[string(e.Key)] = e.Value
		}
		if keys = keysOf(all); opt.Reverse {
			slices.Reverse(keys)
		}
	} else {
		values, _ = scanAll(r.t, r.store, ScanOptions{Prefix: opt.Prefix, Count: 1 + r.rng.IntN(500)})
		for key := range values {
			if key >= string(opt.From) && (opt.To == nil || key < string(opt.To)) {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
	}
	sum := xxhash.New()
	for _, key := range keys {
		fmt.Fprintf(sum, "%d %d %s%s", len(key), len(values[key]), key, values[key])
	}
	r.answer(metaAnswer{what: fmt.Sprintf("scan %q from %q to %q", opt.Prefix, opt.From, opt.To), n: int64(len(keys)), sum: sum.Sum64()})
	r.answer(metaAnswer{what: "keys of the scan", sum: xxhash.Sum64String(strings.Join(keys, " "))})
}

// everything compares the content: by key, by scan, and by number.
func (r *metaRun) everything() {
	for from := 0; from < metaKeys; from += 100 {
		s := &metaStep{what: "everything"}
		for i := from; i < min(from+100, metaKeys); i++ {
			s.add(&Op{Kind: OpGet, Key: r.plan.key(i)}, nil)
			s.add(&Op{Kind: OpTTL, Key: r.plan.key(i)}, nil)
		}
		r.step(s)
	}
	r.step(&metaStep{what: "scan"})
	r.step(&metaStep{what: "count"})
}
