// Package cache keeps copies of records that lie on the device, by their address in
// the log, outside the Go heap.
//
// # Why a copy is never wrong
//
// A record on the device does not change, and its address is never used for another
// one while the store is open. So who follows a chain to an address finds in the copy
// what he would find on the device, whatever has become of the key since. Nothing is
// taken out of the cache when a key is updated, deleted, or moved by compaction: its
// chain then does not lead to the address any more, or ends before it. Index and log
// know nothing of the cache, so nothing of it can get into a snapshot, a commit or a
// file.
//
// # Parts
//
//	table   rows of eight entries, 64 bytes, one cache line: where a copy lies
//	ring    the copies, each behind its address, oldest to newest
//	seen    fingerprints of addresses that were read lately
//
//	          tail                    head
//	ring  |...| oldest | ...  | newest |......|     both go round
//
//	entry  bits  0-31  place in the ring, in words of 8 bytes
//	       bits 32-46  turn of the ring in which it was written
//	       bit  47     hit: it was read since it was written
//	       bits 48-63  tag: 16 bits of the mixed address, not 0
//
// # What comes in, what goes out
//
// A record comes in when it is read from the device for the second time within about
// as many reads as there are entries: what is read once only, and that is most of a
// scan-like load, does not push out what is read often. When the ring is full, the
// oldest copy goes; one that was hit is written again as the newest (a FIFO with
// second chance; with the fingerprints before it the idea of S3-FIFO, Yang et al.,
// SOSP 2023).
//
// # Who may do what when
//
// Readers take no lock. An entry is cleared before the bytes that it leads to are
// written over, and every entry of a turn differs from those of the turns before it.
// So what was read through an entry counts if the entry is the same before and after:
// see Copy.Valid. Until then lengths are not to be trusted. Writers exclude one
// another, and never wait: who finds another at it leaves the record out.
//
// Memory is taken away only after the readers' sections have ended, see Resize.
package cache

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"rskv/engine/internal/record"
	"rskv/ioring"
)

const (
	rowEntries = 8
	rowBytes   = rowEntries * wordBytes
	wordBytes  = 8
	headBytes  = wordBytes // the address before a copy

	placeBits = 32
	placeMask = 1<<placeBits - 1
	turnShift = 32
	turnMask  = 1<<15 - 1
	hitBit    = 1 << 47
	tagShift  = 48

	// RingMax is the largest ring in bytes: 32 GiB.
	RingMax = wordBytes << placeBits
	// copyShare is the part of the ring that one copy may take at most.
	copyShare = 64
	// chances is how many copies that were hit are written again at most for one that
	// comes in, so that this ends.
	chances = 16
	// A ring is taken into use in so many steps, of so many bytes at least.
	steps   = 16
	stepMin = 1 << 20
	// lookEvery is how many records are offered before the owner is told to look.
	lookEvery = 4096
)

// Shape is how large the parts are.
type Shape struct {
	Ring int64 // bytes; 0: nothing is kept, only looked at what would be
	Rows int   // of the table
	Seen int   // fingerprints
}

// ShapeFor divides memory of so many bytes for records of a mean size in bytes.
func ShapeFor(memory, mean int64) Shape {
	// Of each copy: itself, its address, an entry and a half, two fingerprints.
	each := mean + headBytes + 12 + 4
	n := max(memory/each, 1)
	s := Shape{Rows: int(max(n*3/2/rowEntries, 1)), Seen: int(2 * n)}
	s.Ring = min(memory-s.tables(), RingMax) &^ (wordBytes - 1)
	return s
}

// tables is how many bytes table and fingerprints take.
func (s Shape) tables() int64 { return int64(s.Rows)*rowBytes + int64(s.Seen)*2 }

// Bytes is the memory of all parts.
func (s Shape) Bytes() int64 { return s.tables() + s.Ring }

// area is the memory of a cache in one shape.
type area struct {
	shape  Shape
	memory *ioring.Memory
	rows   unsafe.Pointer
	ring   unsafe.Pointer
	seen   unsafe.Pointer
}

func newArea(s Shape) (*area, error) {
	m, err := ioring.AllocMemory(s.Bytes())
	if err != nil {
		return nil, fmt.Errorf("read cache: %w", err)
	}
	a := &area{shape: s, memory: m, rows: m.Pointer()}
	a.ring = unsafe.Add(a.rows, s.Rows*rowBytes)
	a.seen = unsafe.Add(a.ring, s.Ring)
	return a, nil
}

// mix spreads an address over 64 bits.
func mix(at record.Addr) uint64 {
	h := uint64(at) * 0x9e3779b97f4a7c15
	h ^= h >> 32
	h *= 0xd6e8feb86659fd93
	return h ^ h>>32
}

// part maps the low half of a mixed address evenly to 0..n-1.
func part(h uint64, n int) int { return int(uint64(uint32(h)) * uint64(n) >> 32) }

// row is the table's row of a mixed address.
func (a *area) row(h uint64) *[rowEntries]uint64 {
	return (*[rowEntries]uint64)(unsafe.Add(a.rows, part(h, a.shape.Rows)*rowBytes))
}

// tagOf is the tag of a mixed address.
func tagOf(h uint64) uint64 { return max(h>>tagShift, 1) }

// word is the word of the ring that an entry leads to.
func (a *area) word(place uint64) *uint64 {
	return (*uint64)(unsafe.Add(a.ring, int(place&placeMask)*wordBytes))
}

// Counts are what a cache has seen and done since it was made.
type Counts struct {
	Offered  uint64 // records read from the device
	Repeated uint64 // of those, read before within the span of the fingerprints
	Inserted uint64
	Evicted  uint64
	Copies   int64 // in the cache now
	Bytes    int64 // of the ring that they take
	Mean     int64 // size of what is offered, in bytes, a running mean
}

// Cache is a cache. Its zero value keeps nothing until Resize gives it a shape.
type Cache struct {
	area atomic.Pointer[area] // nil: none

	mu      sync.Mutex
	usable  int64  // bytes of the ring that may be used; guarded by mu, as all below
	head    int64  // byte of the ring where the next copy goes
	tail    int64  // of the oldest copy
	used    int64  // bytes between them
	turn    uint64 // how often head has gone round
	victim  int    // entry of a full row that goes next
	scratch []byte
	mean16  int64 // Counts.Mean times 16
	counts  Counts
}

// Resize gives the cache another shape, empty, and returns what frees the memory of
// the old one: to be called when every section has ended that began before. A ring is
// taken into use step by step: see Extend.
func (c *Cache) Resize(s Shape) (free func() error, err error) {
	next, err := newArea(s)
	if err != nil {
		return nil, err
	}
	return c.replace(next), nil
}

// Drop takes all memory from the cache, as Resize. Nothing is counted from then on.
func (c *Cache) Drop() (free func() error) { return c.replace(nil) }

func (c *Cache) replace(next *area) (free func() error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.area.Swap(next)
	c.usable, c.head, c.tail, c.used = 0, 0, 0, 0
	c.turn++
	c.counts.Copies = 0
	return func() error {
		if old == nil {
			return nil
		}
		return old.memory.Free()
	}
}

// Extend lets one step more of the ring be used, a sixteenth, and returns how many
// bytes of memory the cache may take then. full says that the part that may be used
// was not full yet, or is all there is: nothing has changed then.
func (c *Cache) Extend() (bytes int64, extended bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.area.Load()
	if a == nil {
		return 0, false
	}
	if extended = c.wantsLocked(a); extended {
		c.usable = min(c.usable+max(a.shape.Ring/steps, stepMin), a.shape.Ring)
	}
	return a.shape.tables() + c.usable, extended
}

// Wants reports whether Extend would extend.
func (c *Cache) Wants() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.area.Load()
	return a != nil && c.wantsLocked(a)
}

func (c *Cache) wantsLocked(a *area) bool {
	return c.usable < a.shape.Ring && c.usable-c.head < max(a.shape.Ring/copyShare, stepMin/4)
}

// Shape is the present one.
func (c *Cache) Shape() Shape {
	if a := c.area.Load(); a != nil {
		return a.shape
	}
	return Shape{}
}

// Counts are the present ones.
func (c *Cache) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.counts
	n.Bytes, n.Mean = c.used, c.mean16/16
	return n
}

// Copy is a copy of a record that Find has found.
type Copy struct {
	Record unsafe.Pointer // as in the log; see Valid
	slot   *uint64
	entry  uint64
}

// Find finds the copy of the record at an address. It is called within a section, and
// the copy is used within the same.
func (c *Cache) Find(at record.Addr) (x Copy, ok bool) {
	a := c.area.Load()
	if a == nil || a.shape.Ring == 0 {
		return x, false
	}
	h := mix(at)
	row, tag := a.row(h), tagOf(h)
	for i := range row {
		e := atomic.LoadUint64(&row[i])
		if e>>tagShift != tag {
			continue
		}
		if p := a.word(e); atomic.LoadUint64(p) == uint64(at) {
			return Copy{unsafe.Add(unsafe.Pointer(p), headBytes), &row[i], e}, true
		}
	}
	return x, false
}

// Valid reports whether everything that has been read from the copy was its own: no
// other has been written over it. The lengths in its header are to be used only when
// Valid has been true after they were read; what they say is then in the ring, but
// may be written over by and by.
func (x *Copy) Valid() bool { return atomic.LoadUint64(x.slot)&^hitBit == x.entry&^hitBit }

// Hit keeps the copy for longer.
func (x *Copy) Hit() {
	if x.entry&hitBit == 0 {
		atomic.CompareAndSwapUint64(x.slot, x.entry, x.entry|hitBit)
	}
}

// KeyIs reports whether the copy, whose first word w0 is known to be valid, has this
// key.
func (x *Copy) KeyIs(w0 uint64, key []byte) bool {
	if record.KeyLen(w0) != len(key) {
		return false
	}
	p := unsafe.Add(x.Record, record.HeaderSize)
	for len(key) >= wordBytes {
		if atomic.LoadUint64((*uint64)(p)) != binary.LittleEndian.Uint64(key) {
			return false
		}
		p, key = unsafe.Add(p, wordBytes), key[wordBytes:]
	}
	if len(key) == 0 {
		return true
	}
	w := atomic.LoadUint64((*uint64)(p))
	for _, b := range key {
		if byte(w) != b {
			return false
		}
		w >>= 8
	}
	return true
}

// Offer shows the cache a record that has been read from the device and verified; it
// decides whether to keep it. It never waits, and may be called within a section. look
// says that its owner should look at it: it wants to be extended, or has been offered
// another few thousand records.
func (c *Cache) Offer(at record.Addr, image []byte) (look bool) {
	if c.area.Load() == nil || !c.mu.TryLock() {
		return false
	}
	defer c.mu.Unlock()
	a := c.area.Load()
	if a == nil {
		return false
	}
	h := mix(at)
	c.counts.Offered++
	c.mean16 += int64(len(image)) - c.mean16/16
	look = c.counts.Offered%lookEvery == 0
	if !c.seenLocked(a, h) {
		return look
	}
	size := int64(headBytes + len(image))
	if size > a.shape.Ring/copyShare {
		return look
	}
	if _, there := c.Find(at); there {
		return look // two have read it at a time
	}
	if !c.makeRoomLocked(a, size) {
		return true
	}
	c.putLocked(a, at, h, image, c.slotLocked(a, h))
	c.counts.Inserted++
	c.counts.Copies++
	return look
}

// seenLocked reports whether the address was offered lately, and notes that it is.
func (c *Cache) seenLocked(a *area, h uint64) bool {
	if a.shape.Seen == 0 {
		return true
	}
	p := (*uint16)(unsafe.Add(a.seen, part(h>>8, a.shape.Seen)*2))
	print := uint16(tagOf(h))
	if *p != print {
		*p = print
		return false
	}
	c.counts.Repeated++
	return true
}

// slotLocked returns a place for an entry in the row of a mixed address: an empty one,
// else that of a copy that was not hit, else of any.
func (c *Cache) slotLocked(a *area, h uint64) *uint64 {
	row := a.row(h)
	c.victim = (c.victim + 1) % rowEntries
	slot := &row[c.victim]
	for i := range row {
		p := &row[(c.victim+i)%rowEntries]
		e := atomic.LoadUint64(p)
		if e == 0 {
			return p
		}
		if e&hitBit == 0 && atomic.LoadUint64(slot)&hitBit != 0 {
			slot = p
		}
	}
	c.counts.Evicted++
	c.counts.Copies--
	return slot
}

// putLocked writes a copy at the head, where there is room, and has slot lead to it.
func (c *Cache) putLocked(a *area, at record.Addr, h uint64, image []byte, slot *uint64) {
	size := int64(headBytes + len(image))
	if c.head+size > a.shape.Ring {
		c.wrapLocked(a)
	}
	// Whoever still reads what slot led to has to see that it is gone before another
	// copy can be written over that; here the bytes are nobody's.
	p := unsafe.Add(a.ring, c.head)
	atomic.StoreUint64((*uint64)(p), uint64(at))
	record.CopyIn(unsafe.Add(p, headBytes), unsafe.Pointer(unsafe.SliceData(image)), len(image))
	atomic.StoreUint64(slot, uint64(c.head/wordBytes)|c.turn&turnMask<<turnShift|tagOf(h)<<tagShift)
	c.head += size
	c.used += size
}

// wrapLocked leaves the rest of the ring unused and goes on at its beginning.
func (c *Cache) wrapLocked(a *area) {
	if rest := a.shape.Ring - c.head; rest > 0 {
		atomic.StoreUint64(a.word(uint64(c.head/wordBytes)), 0)
		c.used += rest
	}
	c.head = 0
	c.turn++
}

// fitsLocked reports whether a copy of so many bytes can be written at the head.
func (c *Cache) fitsLocked(a *area, size int64) bool {
	if c.head+size > a.shape.Ring {
		size += a.shape.Ring - c.head
	}
	return c.used+size <= a.shape.Ring
}

// makeRoomLocked lets old copies go until one of so many bytes fits; false: the rest
// of the ring may not be used yet.
func (c *Cache) makeRoomLocked(a *area, size int64) bool {
	if c.usable < a.shape.Ring && c.head+size > c.usable {
		return false
	}
	for n := 0; !c.fitsLocked(a, size); n++ {
		c.evictLocked(a, n < chances)
	}
	return true
}

// evictLocked lets the oldest copy go, or, if it was hit and again says so, makes it
// the newest.
func (c *Cache) evictLocked(a *area, again bool) {
	if c.tail == a.shape.Ring {
		c.tail = 0
	}
	p := a.word(uint64(c.tail / wordBytes))
	at := record.Addr(atomic.LoadUint64(p))
	if at == 0 { // the rest of the ring was left unused
		c.used -= a.shape.Ring - c.tail
		c.tail = 0
		return
	}
	image := unsafe.Add(unsafe.Pointer(p), headBytes)
	size := record.Size(record.Load0(image), record.Load1(image))
	place, h := uint64(c.tail/wordBytes), mix(at)
	c.tail += int64(headBytes + size)
	c.used -= int64(headBytes + size)
	slot := a.leadsTo(h, place)
	if slot == nil {
		return // its entry went before it
	}
	hit := atomic.SwapUint64(slot, 0)&hitBit != 0
	if hit && again && c.fitsLocked(a, int64(headBytes+size)) {
		// It may be written over itself in part.
		c.scratch = append(c.scratch[:0], record.Bytes(image, 0, size)...)
		c.putLocked(a, at, h, c.scratch, slot)
		return
	}
	c.counts.Evicted++
	c.counts.Copies--
}

// leadsTo returns the entry that leads to a place of the ring, nil if none does.
func (a *area) leadsTo(h, place uint64) *uint64 {
	row := a.row(h)
	for i := range row {
		if e := atomic.LoadUint64(&row[i]); e != 0 && e&placeMask == place {
			return &row[i]
		}
	}
	return nil
}
