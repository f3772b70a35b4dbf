package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"rskv/bench/internal/draw"
	"rskv/bench/internal/measure"
	"rskv/bench/internal/plot"
	"rskv/engine"
)

// soak overwrites and deletes keys for a long time, and looks every second
// whether disk, memory and index are inside their budgets. Every thread has keys
// of its own and knows what they hold: it checks what it reads on the way, and
// all of it at the end, before and after the store is opened again.
type soak struct {
	dir, plots string
	time       time.Duration
	memory     int64 // bytes, of the store
	segment    int64
	keys       uint64
	disk       int64
	seed       uint64
	least      float64 // of the first quarter's rate, that the last quarter has to have
	store      *engine.Store
	out        io.Writer
	samples    []soakSample
	broken     []string // budgets that were left, and when
	workers    []*soakWorker
	opsAll     atomic.Uint64
	stop       atomic.Bool
}

const (
	// soakTimes is how many times the memory the live data takes; soakDisk how
	// many times these the disk budget.
	soakTimes = 5
	soakDisk  = 2
	// soakValue is the mean size of a value, which are from an eighth of it to
	// nearly twice as large; soakRecord what one takes in the log beside.
	soakValue  = 1000
	soakRecord = 40
	soakBatch  = 32
	// Of a hundred operations.
	soakDeletes, soakReads = 8, 12
	soakTick               = time.Second
	// soakReport is how many broken budgets are told of one by one.
	soakReport = 10
)

// soakSample is one look.
type soakSample struct {
	at                       float64 // seconds
	ops                      uint64
	written, appended        uint64 // bytes of log: by users, and with what compaction copied
	disk, used, rss, memory  int64
	index, indexMax, live    int64
	ratio, writeAmplificated float64
}

func soakCommand() *cobra.Command {
	s := &soak{}
	var memory, segment int64
	c := &cobra.Command{
		Use:   "soak",
		Short: "update and delete for a long time, and watch disk, memory and index stay inside their budgets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.time < 2*soakTick || memory < engine.MemoryMin>>20 || segment < 1 {
				return fmt.Errorf("%w: soak needs a time of at least 2s, 32 MiB of memory, segments of 1 MiB", errUsage)
			}
			s.memory, s.segment, s.out = memory<<20, segment<<20, cmd.OutOrStdout()
			return s.run(cmd.Context())
		},
	}
	c.Flags().DurationVar(&s.time, "time", 2*time.Minute, "how long")
	c.Flags().Int64Var(&memory, "memory", 64, "memory of the store in MiB; the data is five times as large")
	c.Flags().Int64Var(&segment, "segment", 8, "size of a file of the log in MiB, a power of two")
	c.Flags().Uint64Var(&s.seed, "seed", uint64(time.Now().UnixNano()), "of the operations")
	c.Flags().Float64Var(&s.least, "least", 0, "fail when the last quarter does less than so many times the first; 0: never")
	c.Flags().StringVar(&s.dir, "dir", os.TempDir(), "where data is written, and removed again")
	c.Flags().StringVar(&s.plots, "plots", "", "directory for the plots; none if empty")
	return c
}

func (s *soak) run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp(s.dir, "rskv-soak")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s.dir = dir
	data := s.memory * soakTimes
	s.keys, s.disk = uint64(data/(soakValue+soakRecord))&^1, data*soakDisk
	fmt.Fprintf(s.out, "soak for %v: %d keys, %s live, memory %s, disk %s, segments of %s, seed %d\n",
		s.time, s.keys, mib(data), mib(s.memory), mib(s.disk), mib(s.segment), s.seed)
	if err := s.open(); err != nil {
		return err
	}
	defer func() {
		if s.store != nil {
			err = errors.Join(err, s.store.Close())
		}
	}()
	for i, source := range []draw.Source{draw.NewUniform(s.keys/2, s.seed), draw.NewZipf(s.keys/2, zipfTheta, s.seed)} {
		s.workers = append(s.workers, newSoakWorker(s, uint64(i), source))
	}
	if err := s.each((*soakWorker).load); err != nil {
		return fmt.Errorf("load: %w", err)
	}
	if err := s.work(ctx); err != nil {
		return err
	}
	fmt.Fprint(s.out, "checking every key, then again after opening the store anew\n")
	if err := s.each((*soakWorker).verify); err != nil {
		return err
	}
	err = s.store.Close()
	s.store = nil
	if err == nil {
		err = s.open()
	}
	if err == nil {
		err = s.each((*soakWorker).verify)
	}
	return errors.Join(err, s.report())
}

func (s *soak) open() (err error) {
	s.store, err = engine.Open(engine.Options{
		Dir: s.dir, Memory: s.memory, PageSize: 256 << 10, SegmentSize: s.segment, Disk: s.disk,
		CommitInterval: 200 * time.Millisecond, CheckpointDistance: s.disk / 4, CheckpointsKept: 2,
	})
	return err
}

// each lets every worker do something with a session of its own.
func (s *soak) each(do func(w *soakWorker) error) error {
	errs := make([]error, len(s.workers))
	var wg sync.WaitGroup
	for i, w := range s.workers {
		wg.Go(func() {
			w.session = s.store.NewSession()
			defer w.session.Close()
			errs[i] = do(w)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// work is the soak itself: workers, and a look every second.
func (s *soak) work(ctx context.Context) error {
	done := make(chan error, 1)
	go func() {
		done <- s.each(func(w *soakWorker) error {
			for !s.stop.Load() {
				if err := w.batch(); err != nil {
					s.stop.Store(true)
					return err
				}
			}
			return nil
		})
	}()
	began, ticker := time.Now(), time.NewTicker(soakTick)
	defer ticker.Stop()
	for !s.stop.Load() {
		select {
		case err := <-done:
			return err
		case <-ctx.Done():
			s.stop.Store(true)
		case <-ticker.C:
			s.look(time.Since(began))
			if time.Since(began) >= s.time {
				s.stop.Store(true)
			}
		}
	}
	return errors.Join(<-done, ctx.Err())
}

// look takes a sample, and notes which budgets do not hold.
func (s *soak) look(at time.Duration) {
	st := s.store.Stats()
	x := soakSample{
		at: at.Seconds(), ops: s.opsAll.Load(), written: st.LogAppended - st.Moved - st.Forwarded, appended: st.LogAppended, disk: usedBy(s.dir), used: st.DiskUsed, rss: soakResident(),
		memory: st.MemoryIndex + st.MemoryLog + st.MemoryBuffers + st.MemoryPasses + st.MemoryTimers + st.MemoryOrdered, index: st.MemoryIndex, indexMax: st.MemoryIndexMax,
		live: st.LiveBytes, ratio: float64(st.LiveBytes) / float64(max(st.LogTail-st.LogBegin, 1)), writeAmplificated: st.WriteAmplification,
	}
	s.samples = append(s.samples, x)
	for _, b := range []struct {
		what     string
		is, most int64
	}{{"disk", x.disk, s.disk}, {"disk by the store's count", x.used, s.disk}, {"memory", x.memory, s.memory}, {"index", x.index, x.indexMax}} {
		if b.is > b.most {
			s.broken = append(s.broken, fmt.Sprintf("%s is %s of %s after %v", b.what, mib(b.is), mib(b.most), at.Round(time.Second)))
		}
	}
	if n := len(s.samples); n%10 == 0 {
		fmt.Fprintf(s.out, "%4.0f s  %7d ops/s  disk %s  memory %s  rss %s  index %s  live %.0f%%  write amplification %.2f  passes %d  waits %d  %s\n",
			x.at, rate(s.samples[n-10:]), mib(x.disk), mib(x.memory), mib(x.rss), mib(x.index), 100*x.ratio, x.writeAmplificated, st.Compactions, st.SpaceWaits, st.NextCompaction)
	}
}

// rate is the operations a second in some samples.
func rate(samples []soakSample) int {
	first, last := samples[0], samples[len(samples)-1]
	if last.at <= first.at {
		return 0
	}
	return int(float64(last.ops-first.ops) / (last.at - first.at))
}

// report tells what was seen; a budget that was left is an error.
func (s *soak) report() error {
	if n := len(s.samples); n >= 8 {
		first, last := rate(s.samples[:n/4]), rate(s.samples[n-n/4:])
		ratio := float64(last) / float64(max(first, 1))
		fmt.Fprintf(s.out, "%d operations a second in the first quarter, %d in the last: %.2f times\n", first, last, ratio)
		if ratio < s.least {
			s.broken = append(s.broken, fmt.Sprintf("the last quarter did %.2f times the operations of the first, want %.2f", ratio, s.least))
		}
	}
	if n := len(s.samples); n > 1 {
		first, last := s.samples[0], s.samples[n-1]
		lives := float64(last.written-first.written) / float64(max(last.live, 1))
		fmt.Fprintf(s.out, "it stands for %.1f days of a store whose data is all rewritten once a day: users wrote %.1f times what lives, and the log went %.1f times through its disk budget\n",
			lives, lives, float64(last.appended-first.appended)/float64(s.disk))
	}
	if s.plots != "" {
		if err := s.draw(); err != nil {
			return err
		}
	}
	if n := len(s.broken); n > 0 {
		return fmt.Errorf("%d times outside what was promised:\n%s", n, strings.Join(s.broken[:min(n, soakReport)], "\n"))
	}
	fmt.Fprintf(s.out, "disk, memory and index were inside their budgets in all %d samples; every key is right\n", len(s.samples))
	return nil
}

// soakStyle is the part of the report's style sheet that a plot needs by itself.
const soakStyle = `<style>svg{background:#fff}text{font:12px sans-serif;fill:#222}.axis{stroke:#444}.grid{stroke:#ddd}` +
	`.c0{color:#1f77b4}.c1{color:#d62728}.c2{color:#2ca02c}.c3{color:#9467bd}</style>`

// draw writes the plots.
func (s *soak) draw() error {
	if err := os.MkdirAll(s.plots, 0o755); err != nil {
		return err
	}
	line := func(name string, y func(i int) float64) plot.Line {
		l := plot.Line{Name: name}
		for i := range s.samples {
			l.Points = append(l.Points, plot.Point{X: s.samples[i].at, Y: y(i)})
		}
		return l
	}
	m := func(bytes int64) float64 { return float64(bytes) / (1 << 20) }
	for name, c := range map[string]plot.Chart{
		"disk": {Title: "Disk", Y: "MiB", Lines: []plot.Line{
			line("used", func(i int) float64 { return m(s.samples[i].disk) }), line("budget", func(int) float64 { return m(s.disk) }),
			line("live", func(i int) float64 { return m(s.samples[i].live) })}},
		"memory": {Title: "Memory", Y: "MiB", Lines: []plot.Line{
			line("store", func(i int) float64 { return m(s.samples[i].memory) }), line("budget", func(int) float64 { return m(s.memory) }),
			line("index", func(i int) float64 { return m(s.samples[i].index) }), line("resident", func(i int) float64 { return m(s.samples[i].rss) })}},
		"live": {Title: "Live share of the log", Y: "%", Lines: []plot.Line{line("live", func(i int) float64 { return 100 * s.samples[i].ratio })}},
		"throughput": {Title: "Throughput", Y: "operations a second", Lines: []plot.Line{
			line("all", func(i int) float64 { return float64(rate(s.samples[max(0, i-1) : i+1])) })}},
	} {
		c.X = "seconds"
		svg := c.SVG()
		if at := strings.IndexByte(svg, '>'); at > 0 {
			svg = svg[:at] + ` xmlns="http://www.w3.org/2000/svg">` + soakStyle + svg[at+1:]
		}
		if err := os.WriteFile(filepath.Join(s.plots, "soak-"+name+".svg"), []byte(svg), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// usedBy is how many bytes of disk the files of a directory take. One that goes
// meanwhile takes none.
func usedBy(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				bytes += st.Blocks * 512
			}
		}
		return nil
	})
	return bytes
}

// soakResident is the memory of this process in bytes, 0 where the system does not
// tell.
func soakResident() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// soakWorker is one thread, its keys and what they hold.
type soakWorker struct {
	soak    *soak
	id      uint64
	source  draw.Source
	rng     *rand.Rand
	session *engine.Session
	version []uint32 // by number; even: deleted
	numbers [soakBatch]uint64
	wanted  [soakBatch]uint32 // what a read has to find
	ops     [soakBatch]engine.Op
	keys    [soakBatch][8]byte
	values  [soakBatch][]byte
}

func newSoakWorker(s *soak, id uint64, source draw.Source) *soakWorker {
	w := &soakWorker{soak: s, id: id, source: source, rng: rand.New(rand.NewPCG(s.seed, id)), version: make([]uint32, s.keys/2)}
	for i := range w.values {
		w.values[i] = make([]byte, 2*soakValue)
	}
	return w
}

// soakBytes fills dst with the value that a key has in a version, and returns it.
func soakBytes(dst []byte, key uint64, version uint32) []byte {
	x := (key*0x9E3779B97F4A7C15 ^ uint64(version)) * 0xD1342543DE82EF95
	x ^= x >> 29
	dst = dst[:soakValue/8+int((x>>8)%(2*soakValue-soakValue/4))]
	for i := 0; i+8 <= len(dst); i += 8 {
		x = x*0xD1342543DE82EF95 + 0x2545F4914F6CDD1D
		binary.LittleEndian.PutUint64(dst[i:], x)
	}
	for i := len(dst) &^ 7; i < len(dst); i++ {
		dst[i] = byte(key)
	}
	return dst
}

// prepare makes operation i one on the worker's key n.
func (w *soakWorker) prepare(i int, n uint64, kind engine.OpKind) {
	key := n*2 + w.id
	binary.BigEndian.PutUint64(w.keys[i][:], key)
	op := &w.ops[i]
	*op = engine.Op{Kind: kind, Key: w.keys[i][:]}
	v := &w.version[n]
	switch kind {
	case engine.OpPut:
		*v += 1 + *v&1
		op.Value = soakBytes(w.values[i][:cap(w.values[i])], key, *v)
	case engine.OpDelete:
		*v += *v & 1
	default:
		op.Value = w.values[i][:0]
	}
	w.numbers[i], w.wanted[i] = key, *v
}

// do carries the first n operations out and checks what was read.
func (w *soakWorker) do(n int) error {
	w.session.Do(w.ops[:n])
	w.soak.opsAll.Add(uint64(n))
	var expected [2 * soakValue]byte
	for i := range w.ops[:n] {
		op := &w.ops[i]
		if op.Err != nil {
			return fmt.Errorf("key %d: %w", w.numbers[i], op.Err)
		}
		if op.Kind != engine.OpGet {
			continue
		}
		if there := w.wanted[i]&1 == 1; op.Found != there {
			return fmt.Errorf("%w: key %d found: %v, want %v (version %d)", measure.ErrWrong, w.numbers[i], op.Found, there, w.wanted[i])
		}
		if op.Found && string(op.Value) != string(soakBytes(expected[:], w.numbers[i], w.wanted[i])) {
			return fmt.Errorf("%w: key %d has another value than version %d", measure.ErrWrong, w.numbers[i], w.wanted[i])
		}
	}
	return nil
}

// batch is a mix of operations.
func (w *soakWorker) batch() error {
	var numbers [soakBatch]uint64
	w.source.Fill(numbers[:])
	for i, n := range numbers {
		kind := engine.OpPut
		switch x := w.rng.IntN(100); {
		case x < soakDeletes:
			kind = engine.OpDelete
		case x < soakDeletes+soakReads:
			kind = engine.OpGet
		}
		w.prepare(i, n, kind)
	}
	return w.do(len(numbers))
}

// load stores every key once.
func (w *soakWorker) load() error { return w.all(engine.OpPut) }

// verify reads every key.
func (w *soakWorker) verify() error { return w.all(engine.OpGet) }

func (w *soakWorker) all(kind engine.OpKind) error {
	for n := uint64(0); n < uint64(len(w.version)); {
		i := 0
		for ; i < soakBatch && n < uint64(len(w.version)); i++ {
			w.prepare(i, n, kind)
			n++
		}
		if err := w.do(i); err != nil {
			return err
		}
	}
	return nil
}
