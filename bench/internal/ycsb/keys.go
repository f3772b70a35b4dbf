package ycsb

import (
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"

	"rskv/bench/internal/draw"
	"rskv/bench/internal/measure"
)

// stampSize is what a record begins with: its number, to be checked.
const stampSize = 8

// keyMax is how long a key may be in bytes: "user" and a number.
const keyMax = 4 + 20

// Space is the records of one store: those that were loaded and those inserted
// since.
type Space struct {
	loaded  uint64
	hashed  bool
	size    int           // of a record, bytes
	next    atomic.Uint64 // number of the next insert
	visible atomic.Uint64 // all records below have been inserted

	mu struct {
		sync.Mutex
		early map[uint64]bool // inserted, above visible
	}
}

// NewSpace describes a store that holds records 0 to w.Records-1.
func NewSpace(w *Workload) *Space {
	s := &Space{loaded: w.Records, hashed: w.Hashed, size: w.Size()}
	s.next.Store(w.Records)
	s.visible.Store(w.Records)
	s.mu.early = map[uint64]bool{}
	return s
}

// Fits reports whether w may run on the store: its records have this form.
func (s *Space) Fits(w *Workload) bool {
	return s.loaded == w.Records && s.hashed == w.Hashed && s.size == w.Size()
}

// inserted says that record n is there. Readers see it when all below are.
func (s *Space) inserted(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.early[n] = true
	at := s.visible.Load()
	for s.mu.early[at] {
		delete(s.mu.early, at)
		at++
	}
	s.visible.Store(at)
}

// appendKey appends the key of record n: YCSB's "user" and the FNV-1a hash of the
// number, or the number itself.
func (s *Space) appendKey(dst []byte, n uint64) []byte {
	dst = append(dst, "user"...)
	if s.hashed {
		n = fnv(n)
	}
	return strconv.AppendUint(dst, n, 10)
}

// fnv is YCSB's hash of a number, made positive as there.
func fnv(n uint64) uint64 {
	h := uint64(0xCBF29CE484222325)
	for range 8 {
		h ^= n & 0xFF
		h *= 1099511628211
		n >>= 8
	}
	if int64(h) < 0 {
		h = -h
	}
	return h
}

// putStamp and stampOf say in a record which one it is.
func putStamp(value []byte, n uint64) { binary.LittleEndian.PutUint64(value, n) }
func stampOf(value []byte) uint64     { return binary.LittleEndian.Uint64(value) }

// chooser draws records for one goroutine, apart from the others.
type chooser struct {
	space *Space
	kind  string
	rng   *rand.Rand
	pcg   rand.PCG // what rng draws from
	zipf  *draw.Zipf
	hot   float64 // share of the records
	often float64 // share of the operations that go there
	at    uint64  // of a sequential one
}

// weights is the part of a zipf that all choosers share, since it takes long to
// make.
func weights(w *Workload) *draw.Zipf {
	switch w.Distribution {
	case "zipfian":
		// As in YCSB there is room for the records that come while it runs: who draws
		// one that is not there draws again.
		return draw.NewScrambled(w.Records+expectedInserts(w), 1)
	case "latest":
		return draw.NewZipf(max(w.Records, 2), draw.ScrambledTheta, 1)
	}
	return nil
}

// expectedInserts is twice what the run will insert, as YCSB has it; of a run
// that ends by time nobody knows, and a hundredth is taken.
func expectedInserts(w *Workload) uint64 {
	switch {
	case w.Insert == 0:
		return 0
	case w.Operations == 0:
		return w.Records/100 + 1
	}
	return uint64(2 * float64(w.Operations) * w.Insert)
}

func newChooser(s *Space, w *Workload, z *draw.Zipf, seed uint64) *chooser {
	c := &measure.Apart[chooser](1)[0]
	*c = chooser{space: s, kind: w.Distribution, hot: w.HotData, often: w.HotOperations}
	c.pcg.Seed(seed, 7)
	c.rng = rand.New(&c.pcg)
	if z != nil {
		c.zipf = z.Reseeded(seed * 0x9E3779B97F4A7C15)
	}
	if w.Threads > 0 {
		c.at = w.Records / uint64(w.Threads) * seed % w.Records
	}
	return c
}

// record draws one that is there.
func (c *chooser) record() uint64 {
	n := c.space.visible.Load()
	var one [1]uint64
	switch c.kind {
	case "zipfian":
		for {
			if c.zipf.Fill(one[:]); one[0] < n {
				return one[0]
			}
		}
	case "latest":
		for {
			if c.zipf.Ranks(one[:]); one[0] < n {
				return n - 1 - one[0]
			}
		}
	case "hotspot":
		border := max(uint64(float64(n)*c.hot), 1)
		if border == n || c.rng.Float64() < c.often {
			return c.rng.Uint64N(border)
		}
		return border + c.rng.Uint64N(n-border)
	case "sequential":
		c.at++
		return (c.at - 1) % n
	}
	return c.rng.Uint64N(n)
}
