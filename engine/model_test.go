package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// The model test. Eight workers run random operations of all kinds, one by one,
// in batches and asynchronously. Every key belongs to one worker, who therefore
// knows every answer in advance; what all of them share is checked by what must
// hold whatever the order: sums, lengths, and versions that only rise. Values are
// derived from key and version, so that gigabytes can be checked without being
// kept. Beside the workers others read, commit and look at the statistics; between
// the phases the store is closed and opened again with other options.
const (
	modelWorkers = 8
	modelHot     = 40   // keys of each worker that are used all the time
	modelCold    = 2500 // keys of each worker that are used now and then
	modelPhases  = 4
	modelShared  = 4 // counters and appended values that all workers use
	modelParts   = 5 // appended pieces of one value, at most
)

// modelBytes is how much the workers write in all.
func modelBytes(full int64) int64 {
	switch {
	case testing.Short():
		return full / 24
	case raceEnabled:
		return full / 8
	}
	return full
}

// TestModel_Pool: over pread/pwrite, an operation answers what the map would not.
func TestModel_Pool(t *testing.T) {
	runModel(t, modelBytes(1<<30+64<<20), onFiles(t, ioring.PReadWrite))
}

// TestModel_Ring: the same over io_uring.
func TestModel_Ring(t *testing.T) {
	runModel(t, modelBytes(1<<30+64<<20), onFiles(t, ioring.URing))
}

// TestModel_Reordered: the same on a device whose answers come in random order.
func TestModel_Reordered(t *testing.T) {
	device, seed := onFiles(t, ioring.PReadWrite), uint64(0)
	runModel(t, modelBytes(384<<20), func() ioring.Device {
		seed++
		dev := iotest.NewFault(device(), seed)
		dev.Reorder(12)
		dev.Inject(iotest.Rule{Kind: ioring.Read, Match: func(_ *ioring.Op, k int) bool { return k%50 == 0 }, Delay: time.Millisecond})
		return dev
	})
}

// TestModel_Expiry: the same where keys expire, by a clock that moves only while
// no operation is under way, so that every answer is known to the millisecond.
func TestModel_Expiry(t *testing.T) {
	for _, mode := range []ioring.Mode{ioring.PReadWrite, ioring.URing} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			m := &model{clock: newTestClock()}
			m.run(t, modelBytes(384<<20), onFiles(t, mode))
		})
	}
}

// onFiles returns what opens the device of a store on files, the same each time. It
// skips the test where there is no io_uring for it.
func onFiles(t *testing.T, mode ioring.Mode) func() ioring.Device {
	t.Helper()
	if ok, why := ioring.Probe(); !ok && mode == ioring.URing {
		t.Skip(why)
	}
	dir := t.TempDir()
	return func() ioring.Device { return openDevice(t, dir, mode) }
}

func openDevice(t *testing.T, dir string, mode ioring.Mode) ioring.Device {
	dev, err := ioring.Open(ioring.Options{Dir: dir, Mode: mode, SegmentSize: 16 << 20, BufferBytes: bufferBytes(MemoryMin)})
	require.NoError(t, err)
	return dev
}

// modelKey is what a worker knows about one of its keys.
type modelKey struct {
	name    uint64
	present bool
	parts   []modelPart
	version uint64 // of the last part ever written
	expiry  int64  // ms since 1970; 0: none
}

// there reports whether the key is there at a time.
func (k *modelKey) there(now int64) bool { return k.present && (k.expiry == 0 || now < k.expiry) }

// modelPart is a piece of a value: its first eight bytes, if it has as many, are
// the version, the rest follows from name and version.
type modelPart struct {
	version uint64
	size    int
}

func (k *modelKey) key() []byte {
	b := binary.BigEndian.AppendUint64(nil, k.name)
	if k.name%3 == 0 { // keys of several lengths
		b = append(b, bytes.Repeat([]byte{'k'}, int(k.name%97))...)
	}
	return b
}

func (p modelPart) bytes(name uint64) []byte {
	b := valueOf(name, p.version, p.size)
	if p.size >= 8 {
		binary.LittleEndian.PutUint64(b, p.version)
	}
	return b
}

func (k *modelKey) value() []byte {
	if len(k.parts) == 1 {
		return k.parts[0].bytes(k.name)
	}
	b := []byte{}
	for _, p := range k.parts {
		b = append(b, p.bytes(k.name)...)
	}
	return b
}

func (k *modelKey) size() (n int) {
	for _, p := range k.parts {
		n += p.size
	}
	return n
}

// expectation is the answer that an operation must give.
type expectation struct {
	what  string
	name  uint64
	found bool
	any   bool // Found has no meaning
	value []byte
	sum   int64
	read  bool // value is to be compared
}

func (e *expectation) check(op *Op) error {
	switch {
	case op.Err != nil:
		return fmt.Errorf("%s of %#x: %w", e.what, e.name, op.Err)
	case op.Found != e.found && !e.any:
		return fmt.Errorf("%s of %#x: found %t, want %t", e.what, e.name, op.Found, e.found)
	case op.Int != e.sum && (op.Kind == OpAppend || op.Kind == OpAdd || op.Kind == OpTTL && op.Found):
		return fmt.Errorf("%s of %#x: %d, want %d", e.what, e.name, op.Int, e.sum)
	case e.read && e.found && !bytes.Equal(op.Value, e.value):
		return fmt.Errorf("%s of %#x: %d bytes, want %d; first difference at %d", e.what, e.name,
			len(op.Value), len(e.value), firstDifference(op.Value, e.value))
	}
	return nil
}

func firstDifference(a, b []byte) int {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	return i
}

// model is one run.
type model struct {
	t       *testing.T
	store   *Store
	written atomic.Int64
	workers []*modelWorker
	sums    [modelShared]atomic.Int64 // what was added to the shared counters
	lengths [modelShared]atomic.Int64 // what was appended to the shared values
	blind   atomic.Int64              // writes after which Len may be off by one
	failed  atomic.Bool

	clock   *testClock   // nil: nothing expires
	time    atomic.Int64 // ms since 1970: what the store's clock should show
	moving  atomic.Bool  // the clock wants to move: nothing may be pending
	quiet   sync.RWMutex // held for reading by workers while something may be pending
	expired atomic.Int64 // keys that have been met expired
}

// now is the time in ms since 1970; 0 if nothing expires.
func (m *model) now() int64 {
	return m.time.Load()
}

// move lets so many ms pass.
func (m *model) move(ms int64) {
	m.clock.move(ms)
	m.time.Add(ms)
}

type modelWorker struct {
	m     *model
	rng   *rand.Rand
	keys  []*modelKey
	sum   int64 // of the worker's own counter
	id    uint64
	n     *Session
	open  map[uint64]*expectation // asynchronous ones, by tag
	tag   uint64
	quota int64
}

func (m *model) fail(err error) {
	m.failed.Store(true)
	m.t.Error(err)
}

func runModel(t *testing.T, total int64, device func() ioring.Device) {
	new(model).run(t, total, device)
}

func (m *model) run(t *testing.T, total int64, device func() ioring.Device) {
	seed := newSeed(t)
	m.t = t
	for id := range uint64(modelWorkers) {
		w := &modelWorker{m: m, rng: rand.New(rand.NewPCG(seed, id)), id: id, open: map[uint64]*expectation{}}
		for i := range uint64(modelHot + modelCold) {
			w.keys = append(w.keys, &modelKey{name: id<<32 | i})
		}
		m.workers = append(m.workers, w)
	}
	rng := rand.New(rand.NewPCG(seed, 99))
	var version uint64
	for phase := range modelPhases {
		m.store = openOn(t, device(), func(o *Options) {
			o.IndexBits = 10 + phase // chains get long, and the index may grow
			o.CommitInterval = 50 * time.Millisecond
			o.Memory = MemoryMin + int64(rng.IntN(3))<<20
			o.cacheShape = drawCache(rng, 4<<20)
			if m.clock != nil {
				o.Clock = m.clock
			}
		})
		if m.clock != nil {
			// Where the wall clock has gone back, that of the store stands.
			m.time.Store(max(m.time.Load(), m.clock.Wall()))
			require.Equal(t, m.now(), m.store.clock.now())
			m.move(int64(rng.IntN(3000)))
		}
		require.GreaterOrEqual(t, m.store.Recovery().Version, version)
		m.verify(rng, false)
		m.phase(total/modelPhases + 1)
		m.verify(rng, phase == modelPhases-1)
		m.checkShared()
		checkStore(t, m.store)
		keys := int64(0)
		for _, w := range m.workers {
			keys += w.present()
		}
		if m.clock == nil {
			require.InDelta(t, keys, m.store.Len(), float64(m.blind.Load())+5)
		} else {
			m.checkExpiry(rng, keys)
		}
		version = syncStore(t, m.store)
		st := m.store.Stats()
		t.Logf("phase %d: %d MiB written, %d keys, version %d, %d in place, %d appended, %d retries, %d cold reads of %d MiB, %d answered by the read cache",
			phase, m.written.Load()>>20, st.Keys, st.Version, st.InPlace, st.Appended, st.Retries, st.ColdReads, st.ColdBytes>>20, st.CacheHits)
		require.NoError(t, m.store.Close())
		if m.failed.Load() {
			return
		}
	}
	require.GreaterOrEqual(t, m.written.Load(), total)
	require.True(t, m.clock == nil || m.expired.Load() > 0, "nothing has ever expired")
}

// phase lets the workers write quota bytes while others disturb them.
func (m *model) phase(quota int64) {
	stop := make(chan struct{})
	var workers, others sync.WaitGroup
	for _, w := range m.workers {
		w.quota = quota / modelWorkers
		w.n = m.store.NewSession()
		w.n.SetOrdered(w.id%3 == 0)
		workers.Go(w.run)
	}
	others.Go(func() { m.disturb(stop) })
	others.Go(func() { m.compact(stop) })
	if m.clock != nil {
		others.Go(func() { m.tick(stop) })
	}
	for i := range 2 {
		others.Go(func() { m.watch(uint64(i), stop) })
	}
	done := background(workers.Wait)
	select {
	case <-done:
	case <-time.After(5 * time.Minute):
		m.t.Fatalf("the workers do not come to an end: %+v", m.store.Stats())
	}
	close(stop)
	for ended := background(others.Wait); ; {
		select {
		case <-ended:
			return
		case <-time.After(time.Millisecond):
			if m.clock != nil {
				m.quiet.Lock()
				m.move(1) // what is under way may wait for its time
				m.quiet.Unlock()
			}
		}
	}
}

// tick lets the clock move now and then, while nothing is pending.
func (m *model) tick(stop <-chan struct{}) {
	rng := rand.New(rand.NewPCG(uint64(m.written.Load()), 3))
	for {
		select {
		case <-stop:
			return
		case <-time.After(2 * time.Millisecond):
		}
		m.moving.Store(true)
		m.quiet.Lock()
		m.move(1 + int64(rng.IntN(200)))
		m.moving.Store(false)
		m.quiet.Unlock()
	}
}

// pauseForClock lets the clock move, if it wants to.
func (w *modelWorker) pauseForClock() {
	if w.m.moving.Load() {
		w.drain()
		w.m.quiet.RUnlock()
		w.m.quiet.RLock()
	}
}

// checkExpiry compares what expiry leaves with what it should: keys of the workers.
func (m *model) checkExpiry(rng *rand.Rand, keys int64) {
	count, err := m.store.LenExact(context.Background())
	require.NoError(m.t, err)
	n := m.store.NewSession()
	defer n.Close()
	shared := int64(0)
	for i := range modelShared {
		for _, name := range []string{"sum", "log"} {
			there, err := n.Exists(fmt.Appendf(nil, "%s %d", name, i))
			require.NoError(m.t, err)
			if there {
				shared++
			}
		}
	}
	for i := range modelWorkers {
		there, err := n.Exists(fmt.Appendf(nil, "own %d", i))
		require.NoError(m.t, err)
		if there {
			shared++
		}
	}
	require.Equal(m.t, keys+shared, count.Keys, "keys that a scan finds")
	// The commit behind this carries the time.
	require.NoError(m.t, n.Put([]byte("the time"), valueOf(1, rng.Uint64(), 8)))
	_, err = n.Delete([]byte("the time"))
	require.NoError(m.t, err)
	m.clock.wall.Add(int64(rng.IntN(3)-1) * 1_000_000_000)
}

// disturb commits all the time.
func (m *model) disturb(stop <-chan struct{}) {
	last := uint64(0)
	for {
		select {
		case <-stop:
			return
		case <-time.After(3 * time.Millisecond):
		}
		version, err := m.store.Sync(context.Background())
		if err != nil || version < last {
			m.fail(fmt.Errorf("sync: version %d after %d, %w", version, last, err))
		}
		last = version
		m.store.Stats()
	}
}

// compact compacts the log all the time, the whole of it or a part.
func (m *model) compact(stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(20 * time.Millisecond):
		}
		begin, tail := m.store.log.Begin(), m.store.log.Tail()
		until := int64(0)
		if i%3 > 0 {
			until = (begin + (tail-begin)/record.Addr(i%3*2)).Bytes()
		}
		if _, err := m.store.Compact(context.Background(), CompactOptions{Until: until}); err != nil {
			m.fail(err)
			return
		}
	}
}

// watch reads keys of the workers whose values are never appended to: each is one
// that somebody wrote, and none is older than the one before.
func (m *model) watch(id uint64, stop <-chan struct{}) {
	n := m.store.NewSession()
	defer n.Close()
	rng := rand.New(rand.NewPCG(id, 7))
	newest := map[uint64]uint64{}
	var ops []Op
	for {
		select {
		case <-stop:
			return
		default:
		}
		ops = ops[:0]
		for range 1 + rng.IntN(20) {
			w := m.workers[rng.IntN(modelWorkers)]
			k := w.keys[rng.IntN(modelHot/4)*4]
			ops = append(ops, Op{Kind: OpGet, Key: k.key(), Tag: k.name})
		}
		n.Do(ops)
		for i := range ops {
			op := &ops[i]
			if op.Err != nil {
				m.fail(op.Err)
				return
			}
			if len(op.Value) < 8 {
				continue
			}
			version := binary.LittleEndian.Uint64(op.Value)
			if !bytes.Equal(op.Value, modelPart{version, len(op.Value)}.bytes(op.Tag)) {
				m.fail(fmt.Errorf("key %#x: a value that nobody wrote: %d bytes, version %d", op.Tag, len(op.Value), version))
				return
			}
			if version < newest[op.Tag] {
				m.fail(fmt.Errorf("key %#x: version %d was seen after %d", op.Tag, version, newest[op.Tag]))
				return
			}
			newest[op.Tag] = version
		}
	}
}

func (w *modelWorker) present() (n int64) {
	for _, k := range w.keys {
		if k.there(w.m.now()) {
			n++
		}
	}
	return n
}

// run writes until the quota is used up.
func (w *modelWorker) run() {
	defer w.n.Close()
	w.m.quiet.RLock()
	defer w.m.quiet.RUnlock()
	for w.quota > 0 && !w.m.failed.Load() {
		w.pauseForClock()
		if w.rng.IntN(3) == 0 {
			w.async()
		} else {
			w.batch()
		}
		w.shared()
	}
	w.drain()
}

// batch runs a batch and waits for it.
func (w *modelWorker) batch() {
	w.drain()
	ops, want := w.generate()
	w.n.Do(ops)
	for i := range ops {
		if err := want[i].check(&ops[i]); err != nil {
			w.m.fail(err)
		}
	}
}

// async starts a batch beside what is pending already.
func (w *modelWorker) async() {
	ops, want := w.generate()
	for i := range ops {
		w.tag++
		ops[i].Tag = w.tag
		w.open[w.tag] = want[i]
	}
	w.n.Start(ops)
	for i := range ops {
		if !ops[i].Pending() {
			w.answer(&ops[i])
		}
	}
	if w.n.Pending() > 300 {
		w.n.Complete(w.answer)
		<-w.n.Ready()
	}
}

func (w *modelWorker) answer(op *Op) {
	want := w.open[op.Tag]
	if want == nil {
		w.m.fail(fmt.Errorf("an answer that nobody waits for: %+v", op))
		return
	}
	delete(w.open, op.Tag)
	if err := want.check(op); err != nil {
		w.m.fail(err)
	}
}

func (w *modelWorker) drain() {
	w.n.wait(w.answer)
	if len(w.open) != 0 {
		w.m.fail(fmt.Errorf("%d operations were never answered", len(w.open)))
		clear(w.open)
	}
}

// shared uses what all workers share, and the worker's own counter.
func (w *modelWorker) shared() {
	w.drain()
	i := w.rng.IntN(modelShared)
	delta := int64(w.rng.IntN(9) + 1)
	ops := []Op{
		{Kind: OpAdd, Key: fmt.Appendf(nil, "sum %d", i), Delta: delta},
		{Kind: OpAppend, Key: fmt.Appendf(nil, "log %d", i), Value: []byte{byte(w.id)}},
		{Kind: OpAdd, Key: fmt.Appendf(nil, "own %d", w.id), Delta: -delta},
		{Kind: OpUpdate, Key: fmt.Appendf(nil, "sum %d", i), Fn: func(old []byte, found bool) ([]byte, Verdict) {
			return binary.LittleEndian.AppendUint64(nil, binary.LittleEndian.Uint64(old)+1), Replace
		}},
	}
	w.n.Do(ops)
	for j := range ops {
		if ops[j].Err != nil {
			w.m.fail(ops[j].Err)
		}
	}
	w.m.sums[i].Add(delta + 1)
	w.m.lengths[i].Add(1)
	if w.sum -= delta; ops[2].Int != w.sum {
		w.m.fail(fmt.Errorf("own counter: %d, want %d", ops[2].Int, w.sum))
	}
}

// checkShared compares what all workers share with what they did to it.
func (m *model) checkShared() {
	n := m.store.NewSession()
	defer n.Close()
	for i := range modelShared {
		sum, err := n.Add(fmt.Appendf(nil, "sum %d", i), 0)
		require.NoError(m.t, err)
		require.Equal(m.t, m.sums[i].Load(), sum, "an add was lost or done twice")
		value, err := n.Get(fmt.Appendf(nil, "log %d", i), nil)
		if errors.Is(err, ErrNotFound) {
			value, err = nil, nil
		}
		require.NoError(m.t, err)
		require.EqualValues(m.t, m.lengths[i].Load(), len(value), "an append was lost or done twice")
	}
}

// verify reads keys back: all of them, or a sample.
func (m *model) verify(rng *rand.Rand, all bool) {
	var wg sync.WaitGroup
	for _, w := range m.workers {
		skip := 1
		if !all {
			skip = 10 + rng.IntN(10)
		}
		wg.Go(func() {
			n := m.store.NewSession()
			defer n.Close()
			for i := 0; i < len(w.keys); {
				var ops []Op
				var want []*expectation
				for bytes := 0; i < len(w.keys) && bytes < 1<<20; i += skip {
					k := w.keys[i]
					ops = append(ops, Op{Kind: OpGet, Key: k.key()})
					want = append(want, &expectation{what: "verify", name: k.name, found: k.there(m.now()), value: k.value(), read: true})
					bytes += k.size()
				}
				n.Do(ops)
				for j := range ops {
					if err := want[j].check(&ops[j]); err != nil {
						m.fail(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// generate makes a batch of random operations and the answers to expect. The
// model is updated at once: a session keeps the order of each key.
func (w *modelWorker) generate() (ops []Op, want []*expectation) {
	room := 3 << 20
	for range 1 + w.rng.IntN(60) {
		op, e, size := w.operation()
		ops, want = append(ops, op), append(want, e)
		w.quota -= int64(size)
		w.m.written.Add(int64(size))
		if room -= size; room < 0 {
			break
		}
	}
	return ops, want
}

func (w *modelWorker) pick() *modelKey {
	k := w.keys[modelHot+w.rng.IntN(modelCold)]
	if w.rng.IntN(2) == 0 {
		k = w.keys[w.rng.IntN(modelHot)]
	}
	if k.present && !k.there(w.m.now()) {
		w.m.expired.Add(1)
		k.remove()
	}
	return k
}

// live gives a key that op stores, or would if it were not refused, a time to live,
// or none. keeps is whether none means that its expiry stays.
func (w *modelWorker) live(k *modelKey, op *Op, stored, keeps bool) {
	if w.m.clock != nil && w.rng.IntN(3) == 0 {
		op.TTL = 1 + int64(w.rng.IntN(1+w.rng.IntN(3000)))
	}
	switch {
	case !stored:
	case op.TTL != 0:
		k.expiry = w.m.now() + op.TTL
	case !keeps:
		k.expiry = 0
	}
}

// expire changes or asks for the time to live of a key.
func (w *modelWorker) expire(k *modelKey, op *Op, e *expectation) {
	if w.rng.IntN(2) == 0 {
		op.Kind, e.what, e.sum = OpTTL, "ttl", -1
		if k.expiry != 0 {
			e.sum = k.expiry - w.m.now()
		}
		return
	}
	op.Kind, e.what = OpExpire, "expire"
	w.live(k, op, k.present, false)
}

// pickSize draws the size of a value: 0 B to 1 MiB, small ones more often.
func (w *modelWorker) pickSize(k *modelKey) int {
	most := []int{10, 200, 200, 200, 2000, 4000, 4000, 20_000, 64 << 10, 100_000}[w.rng.IntN(10)]
	if k.name&(1<<32-1) >= modelHot && w.rng.IntN(12) == 0 {
		most = 1 << 20
	}
	if most <= 2000 && w.rng.IntN(2) == 0 && len(k.parts) == 1 {
		return k.parts[0].size // in place
	}
	if w.rng.IntN(50) == 0 {
		return most
	}
	return w.rng.IntN(most)
}

// renew gives the key a new value of one part.
func (k *modelKey) renew(size int) []byte {
	k.version++
	k.present, k.parts = true, []modelPart{{k.version, size}}
	return k.value()
}

func (k *modelKey) remove() { k.present, k.parts, k.expiry = false, nil, 0 }

// operation draws one operation. It returns how many bytes it writes.
func (w *modelWorker) operation() (op Op, e *expectation, size int) {
	k := w.pick()
	op.Key = k.key()
	e = &expectation{name: k.name, found: k.present}
	single := k.name%4 == 0 // the watchers read it
	if w.m.clock != nil && w.rng.IntN(8) == 0 {
		w.expire(k, &op, e)
		return op, e, 0
	}
	switch choice := w.rng.IntN(100); {
	case choice < 20:
		op.Kind, e.what, e.read, e.value = OpGet, "get", true, k.value()
		if w.rng.IntN(2) == 0 {
			op.Value = make([]byte, 0, w.rng.IntN(5000))
		}
	case choice < 25:
		op.Kind, e.what = OpExists, "exists"
	case choice < 60:
		if !k.present {
			w.m.blind.Add(1)
		}
		op.Kind, e.what, e.found = OpPut, "put", true
		op.Value = k.renew(w.pickSize(k))
		w.live(k, &op, true, false)
	case choice < 65:
		op.Kind, op.If, e.what, e.found = OpPut, IfAbsent, "put if absent", !k.present
		op.Value = []byte("not stored")
		if !k.present {
			op.Value = k.renew(w.pickSize(k))
		}
		w.live(k, &op, e.found, false)
	case choice < 70:
		op.Kind, op.If, e.what = OpPut, IfPresent, "put if present"
		op.Value = []byte("not stored")
		if k.present {
			op.Value = k.renew(w.pickSize(k))
		}
		w.live(k, &op, e.found, false)
	case choice < 74:
		op.Kind, e.what = OpDelete, "delete"
		k.remove()
	case choice < 77:
		if !k.present {
			w.m.blind.Add(1)
		}
		op.Kind, op.Blind, e.what, e.any = OpDelete, true, "blind delete", true
		k.remove()
	case choice < 85:
		w.compareAndSwap(k, &op, e)
	case choice < 93 && !single:
		w.grow(k, &op, e)
	default:
		w.update(k, &op, e)
	}
	return op, e, len(op.Value)
}

func (w *modelWorker) compareAndSwap(k *modelKey, op *Op, e *expectation) {
	op.Kind, e.what = OpCompareAndSwap, "compare and swap"
	op.OldAbsent = !k.present
	op.Old = k.value()
	e.found = true
	if w.rng.IntN(3) == 0 { // the wrong old value
		e.found = false
		op.Value = []byte("not stored")
		w.live(k, op, false, false)
		switch {
		case op.OldAbsent:
			op.OldAbsent, op.Old = false, []byte{}
		case len(op.Old) == 0 || w.rng.IntN(2) == 0:
			op.OldAbsent = true
		default:
			op.Old[w.rng.IntN(len(op.Old))] ^= 1
		}
		return
	}
	if w.rng.IntN(4) == 0 {
		op.NewAbsent = true
		k.remove()
		return
	}
	op.Value = k.renew(w.pickSize(k))
	w.live(k, op, true, false)
}

func (w *modelWorker) grow(k *modelKey, op *Op, e *expectation) {
	op.Kind, e.what, e.found = OpAppend, "append", true
	part := modelPart{k.version + 1, w.pickSize(k)}
	if len(k.parts) >= modelParts || k.size()+part.size > 1<<20 {
		part.size = 0
	}
	k.version++
	op.Value = part.bytes(k.name)
	k.present = true
	if part.size > 0 {
		k.parts = append(k.parts[:len(k.parts):len(k.parts)], part)
	}
	e.sum = int64(k.size())
	w.live(k, op, true, true)
}

func (w *modelWorker) update(k *modelKey, op *Op, e *expectation) {
	op.Kind, e.what = OpUpdate, "update"
	before := expectation{what: "old value of update", name: k.name, found: k.present, value: k.value(), read: true}
	verdict, next := Verdict(w.rng.IntN(3)), []byte(nil)
	switch verdict {
	case Replace:
		next = k.renew(w.pickSize(k))
		w.live(k, op, true, true)
	case Remove:
		k.remove()
	}
	fail := w.m.fail
	op.Fn = func(old []byte, found bool) ([]byte, Verdict) {
		if err := before.check(&Op{Kind: OpGet, Found: found, Value: old}); err != nil {
			fail(err)
		}
		if verdict == Replace && cap(old) >= len(next) && len(next) > 0 {
			return append(old[:0], next...), verdict // in the memory that may be changed
		}
		return next, verdict
	}
}

// registerInput and the model below are the porcupine view of one key.
type registerInput struct {
	kind  OpKind
	value string
	old   string
}

type registerOutput struct {
	found bool
	value string
}

// register is a key as a state machine: the state is "" for absent, else "=" and
// the value.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(string), input.(registerInput), output.(registerOutput)
		switch in.kind {
		case OpGet:
			return out.found == (now != "") && (now == "" || now[1:] == out.value), now
		case OpPut:
			return true, "=" + in.value
		case OpDelete:
			return out.found == (now != ""), ""
		case OpCompareAndSwap:
			swap := now == "="+in.old
			if swap {
				now = "=" + in.value
			}
			return out.found == swap, now
		}
		next := "=" + in.value // append
		if now != "" {
			next = now + in.value
		}
		return true, next
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// TestModel_Linearizable: the answers that several sessions get for one key do
// not fit into any order, because a write is lost, done twice, or seen too early
// or too late; in place, copied, in the fuzzy region, and from the disk.
func TestModel_Linearizable(t *testing.T) {
	seed := newSeed(t)
	rounds := 60
	if testing.Short() || raceEnabled {
		rounds = 12
	}
	mem := iotest.NewMem(iotest.MemOptions{SegmentSize: 4 << 20, BufferBytes: 2 << 20})
	dev := iotest.NewFault(mem, seed)
	dev.Reorder(4)
	s := openOn(t, dev, func(o *Options) { o.IndexBits = indexBitsMin; o.CommitInterval = time.Millisecond })
	stop := make(chan struct{})
	mover := background(func() { // pushes everything through all regions
		n := s.NewSession()
		defer n.Close()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := n.Put(key64(i%50), make([]byte, 60<<10)); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for round := range rounds {
		const keys, clients, each = 3, 6, 30
		var mu sync.Mutex
		history := make([][]porcupine.Operation, keys)
		begin := time.Now()
		var wg sync.WaitGroup
		for c := range clients {
			wg.Go(func() {
				n := s.NewSession()
				defer n.Close()
				rng := rand.New(rand.NewPCG(seed, uint64(round*100+c)))
				for i := range each {
					k := rng.IntN(keys)
					in := registerInput{
						kind:  []OpKind{OpGet, OpGet, OpPut, OpDelete, OpDelete, OpCompareAndSwap, OpAppend}[rng.IntN(7)],
						value: fmt.Sprintf("%c%d", 'a'+c, i%10), old: fmt.Sprintf("%c%d", 'a'+rng.IntN(clients), rng.IntN(10)),
					}
					if rng.IntN(8) == 0 {
						in.value += string(bytes.Repeat([]byte{'.'}, rng.IntN(3000)))
					}
					op := Op{Kind: in.kind, Key: fmt.Appendf(nil, "key %d of round %d", k, round), Old: []byte(in.old)}
					if op.Kind != OpGet {
						op.Value = []byte(in.value)
					}
					call := time.Since(begin)
					err := n.one(&op)
					back := time.Since(begin)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					history[k] = append(history[k], porcupine.Operation{
						ClientId: c, Input: in, Call: int64(call), Return: int64(back),
						Output: registerOutput{op.Found, string(op.Value)},
					})
					mu.Unlock()
					if rng.IntN(6) == 0 {
						time.Sleep(time.Duration(rng.IntN(2000)) * time.Microsecond)
					}
				}
			})
		}
		wg.Wait()
		for k := range history {
			switch porcupine.CheckOperationsTimeout(register, history[k], 10*time.Second) {
			case porcupine.Illegal:
				t.Fatalf("round %d: the answers for key %d fit into no order", round, k)
			case porcupine.Unknown:
				t.Logf("round %d, key %d: too hard to check", round, k)
			}
		}
	}
	close(stop)
	<-mover
	checkStore(t, s)
	require.NoError(t, s.Close())
}
