// Package timers says which records of the log are to be looked at when: a
// hierarchical timer wheel (Varghese and Lauck, SOSP 1987) of log addresses,
// outside the Go heap, of eight bytes a timer.
//
//	              slot: 256 of each level
//	level 0       a tick, 256 ms               the next minute
//	level 1       65 s                         the next 4.6 hours
//	level 2       4.6 hours                    the next 49 days
//	level 3       49 days                      34 years, until 2039 the first time
//
// A timer lies at the lowest level at which its slot is not the present one of the
// level. When time gets there, its slot is spread over the levels below. What lies
// further away than the levels reach is put at their end, and comes early.
//
// A timer is a hint: it comes not before its time by the clock that Due is told,
// rounded up to a tick, but it may be of a record that has gone or changed since,
// and one that lies far away may come before its time, by less than a 2^17th of
// what is left. Whoever takes it looks at the record, and sets it again if need be.
package timers

import (
	"fmt"
	"math"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"rskv/engine/internal/record"
	"rskv/ioring"
)

const (
	// TickShift is log2 of a tick in ms.
	TickShift = 8

	levels    = 4
	slotBits  = 8
	slots     = 1 << slotBits
	addrBits  = 47
	addrMask  = 1<<addrBits - 1
	restBits  = 64 - addrBits
	reachBits = levels * slotBits

	// A chunk is a header and the timers of one slot: it has two cache lines of
	// header and timers at a time, and wastes little where a slot has few.
	chunkBytes  = 256
	chunkTimers = chunkBytes/8 - 1
	// BlockBytes is how much memory is taken from the system at a time.
	BlockBytes  = 1 << 20
	blockChunks = BlockBytes / chunkBytes
)

// Timer is a record's address and its time in ms since 1970.
type Timer struct {
	Addr record.Addr
	Time int64
}

// chunk is a part of a slot's list:
//
//	word 0   bits  0-31  number of the next chunk, from 1; 0: none
//	         bits 32-63  timers in this one
//	words    bits  0-46  address
//	         bits 47-63  upper bits of the time within the slot, in ticks
type chunk [chunkBytes / 8]uint64

// Wheel is a set of timers. Its methods may be called from any goroutine.
type Wheel struct {
	mu sync.Mutex // protects everything below

	at     int64 // first tick that is not due yet
	heads  [levels][slots]uint32
	counts [levels]int
	due    uint32
	count  int // timers in all
	blocks []*ioring.Memory
	free   uint32       // list of unused chunks
	fresh  uint32       // chunks of the blocks that were never used
	limit  int64        // of the blocks in bytes
	bytes  atomic.Int64 // they take; may be read without the mutex
	over   bool         // the limit does not count: what is there is being spread
}

// New returns an empty wheel that takes at most so many bytes. now is in ms since
// 1970.
func New(now, limit int64) *Wheel { return &Wheel{at: now >> TickShift, limit: limit} }

// SetLimit changes how many bytes may be taken. What is taken stays.
func (w *Wheel) SetLimit(bytes int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.limit = bytes
}

// Insert adds timers, and returns how many there was no memory for.
func (w *Wheel) Insert(timers []Timer) (dropped int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range timers {
		if !w.insertLocked(t.Addr, t.Time>>TickShift) {
			dropped++
		}
	}
	return dropped
}

// insertLocked puts a timer of a tick where it belongs.
func (w *Wheel) insertLocked(a record.Addr, tick int64) bool {
	if tick < w.at {
		return w.putLocked(&w.due, uint64(a)&addrMask)
	}
	tick = min(tick, w.at|(1<<reachBits-1))
	level := 0
	if d := uint64(tick ^ w.at); d != 0 {
		level = (bits.Len64(d) - 1) / slotBits
	}
	below := level * slotBits // bits of the tick below those that name the slot
	rest := uint64(tick) & (1<<below - 1)
	if below > restBits {
		rest >>= below - restBits
	}
	if !w.putLocked(&w.heads[level][tick>>below&(slots-1)], uint64(a)&addrMask|rest<<addrBits) {
		return false
	}
	w.counts[level]++
	return true
}

// restOf is the part of a tick that a timer's word of a level holds.
func restOf(word uint64, level int) int64 {
	rest, below := word>>addrBits, level*slotBits
	if below > restBits {
		rest <<= below - restBits
	}
	return int64(rest)
}

func (w *Wheel) chunk(n uint32) *chunk {
	n--
	return (*chunk)(unsafe.Add(w.blocks[n/blockChunks].Pointer(), uintptr(n%blockChunks)*chunkBytes))
}

// putLocked adds a word to a list.
func (w *Wheel) putLocked(head *uint32, word uint64) bool {
	if n := *head; n != 0 {
		c := w.chunk(n)
		if used := c[0] >> 32; used < chunkTimers {
			c[1+used] = word
			c[0] += 1 << 32
			w.count++
			return true
		}
	}
	n := w.takeLocked()
	if n == 0 {
		return false
	}
	c := w.chunk(n)
	c[0], c[1] = uint64(*head)|1<<32, word
	*head = n
	w.count++
	return true
}

// takeLocked returns an unused chunk, 0 if there is none.
func (w *Wheel) takeLocked() uint32 {
	if n := w.free; n != 0 {
		w.free = uint32(w.chunk(n)[0])
		return n
	}
	if int(w.fresh) == len(w.blocks)*blockChunks {
		if int64(len(w.blocks)+1)*BlockBytes > w.limit && !w.over {
			return 0
		}
		m, err := ioring.AllocMemory(BlockBytes)
		if err != nil {
			return 0 // as if the limit were reached
		}
		w.blocks = append(w.blocks, m)
		w.bytes.Add(BlockBytes)
	}
	w.fresh++
	return w.fresh
}

// giveLocked takes an unused chunk back and returns the one behind it.
func (w *Wheel) giveLocked(n uint32) (next uint32) {
	c := w.chunk(n)
	next = uint32(c[0])
	c[0] = uint64(w.free)
	w.free = n
	return next
}

// Due takes up to len(into) addresses whose time has come at now, in no order, and
// returns how many. settled is the time up to which none is left; those that are
// set while others are taken come with the next call.
func (w *Wheel) Due(now int64, into []record.Addr) (n int, settled int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for w.due != 0 && n < len(into) {
			c := w.chunk(w.due)
			used := c[0] >> 32
			into[n] = record.Addr(c[used] & addrMask)
			n++
			w.count--
			if c[0] -= 1 << 32; used == 1 {
				w.due = w.giveLocked(w.due)
			}
		}
		if w.due != 0 || !w.advanceLocked(now>>TickShift) {
			break
		}
	}
	if w.count == 0 {
		w.releaseLocked()
	}
	settled = w.at<<TickShift - 1
	if n > 0 || w.due != 0 {
		settled = 0 // not before these have been looked at
	}
	return n, settled
}

// advanceLocked goes on towards a tick until there is something due, and reports
// whether there is.
func (w *Wheel) advanceLocked(tick int64) bool {
	for w.at < tick && w.due == 0 {
		if w.count == 0 {
			w.at = tick
			return false
		}
		// Where a level has nothing, all of its slots pass at once.
		level := 0
		for level < levels && w.counts[level] == 0 {
			level++
		}
		if level > 0 {
			end := w.at | (1<<(level*slotBits) - 1)
			if end >= tick {
				w.at = tick
				return false
			}
			w.at = end
		} else {
			head := &w.heads[0][w.at&(slots-1)]
			w.due, *head = *head, 0
			w.counts[0] -= w.lengthLocked(w.due)
		}
		w.at++
		w.spreadLocked()
	}
	return w.due != 0
}

func (w *Wheel) lengthLocked(head uint32) (n int) {
	for ; head != 0; head = uint32(w.chunk(head)[0]) {
		n += int(w.chunk(head)[0] >> 32)
	}
	return n
}

// spreadLocked moves the timers of the slots that have become the present ones of
// their levels to the levels below.
func (w *Wheel) spreadLocked() {
	w.over = true
	defer func() { w.over = false }()
	for level := levels - 1; level > 0; level-- {
		below := level * slotBits
		if w.at&(1<<below-1) != 0 {
			continue
		}
		w.emptyLocked(level, int(w.at>>below&(slots-1)), func(word uint64) {
			w.insertLocked(record.Addr(word&addrMask), w.at+restOf(word, level))
		})
	}
}

// emptyLocked takes all timers out of a slot and hands each to put, which may put it
// into the same slot again.
func (w *Wheel) emptyLocked(level, slot int, put func(word uint64)) {
	head := &w.heads[level][slot]
	list := *head
	*head = 0
	for list != 0 {
		c := w.chunk(list)
		words, used := *c, int(c[0]>>32)
		list = w.giveLocked(list)
		w.counts[level] -= used
		w.count -= used
		for _, word := range words[1 : 1+used] {
			put(word)
		}
	}
}

// Next returns the time, in ms since 1970, before which Due has nothing; later than
// any clock for an empty wheel. It may have nothing then either, and know better.
func (w *Wheel) Next() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.due != 0 {
		return 0
	}
	for level := range levels {
		if w.counts[level] == 0 {
			continue
		}
		below := level * slotBits
		for tick := w.at >> below; ; tick++ {
			if w.heads[level][tick&(slots-1)] != 0 {
				return (tick<<below + 1) << TickShift
			}
		}
	}
	return math.MaxInt64
}

// Purge forgets the timers of addresses below a, in one slot; the number of the
// slot is between 0 and PurgeSlots.
func (w *Wheel) Purge(slot int, a record.Addr) {
	w.mu.Lock()
	defer w.mu.Unlock()
	level := slot / slots
	head := &w.heads[level][slot%slots]
	w.emptyLocked(level, slot%slots, func(word uint64) {
		if record.Addr(word&addrMask) >= a && w.putLocked(head, word) {
			w.counts[level]++
		}
	})
	if w.count == 0 {
		w.releaseLocked()
	}
}

// PurgeSlots is how many slots there are.
const PurgeSlots = levels * slots

// releaseLocked gives the memory of an empty wheel back.
func (w *Wheel) releaseLocked() {
	for _, m := range w.blocks {
		_ = m.Free() // if the system does not take it, it is only not given back
	}
	w.blocks, w.free, w.fresh = nil, 0, 0
	w.bytes.Store(0)
}

// Len is the number of timers.
func (w *Wheel) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// Bytes is the memory taken.
func (w *Wheel) Bytes() int64 { return w.bytes.Load() }

// Free gives the memory back. Who inserts timers from then on is told that there is
// no memory for them.
func (w *Wheel) Free() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.heads, w.counts, w.due, w.count = [levels][slots]uint32{}, [levels]int{}, 0, 0
	w.limit = 0
	w.releaseLocked()
}

// Check reports what does not agree in a wheel, for tests.
func (w *Wheel) Check() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	total := w.lengthLocked(w.due)
	for level := range levels {
		n := 0
		for _, head := range w.heads[level] {
			n += w.lengthLocked(head)
		}
		if n != w.counts[level] {
			return fmt.Errorf("level %d has %d timers and counts %d", level, n, w.counts[level])
		}
		total += n
	}
	if total != w.count {
		return fmt.Errorf("there are %d timers and %d are counted", total, w.count)
	}
	return nil
}
