// Package ordered is a set of keys in their order, in memory outside the Go heap: a
// B+ tree whose leaves hold the keys and whose inner nodes are never changed.
//
//	root --> inner        immutable: a change copies the path up to the root,
//	        /  |  \       and then the root is swapped
//	    inner inner inner
//	    /|\    /|\    /|\
//	   leaf -> leaf -> leaf ...   changed under a latch of their own
//
// # Who may do what
//
// Every call is made inside an epoch section, in which it only computes. Whoever
// looks for a leaf reads inner nodes without a lock, as they are; the leaf says by
// its bounds whether it is the right one still, and knows the one to its right. A
// leaf is read and changed under its latch, for which nobody spins long: a call that
// finds somebody in its way says Again, and its caller leaves the section and comes
// back.
//
// What changes the structure (a split, a merge) is done by one at a time, who holds
// the tree's lock. A latch may be held when the lock is tried, and the lock when a
// latch is tried; neither is waited for, so nobody waits in a circle. Nodes that
// were replaced are used again when every section that could see them has ended.
//
// # Doubt
//
// The set may hold keys that the store has not any more, for a while; it must never
// lack one that the store has. So a writer adds a key before he links the record
// that brings it to life, in the same section; and a key is removed in two steps:
//
//	in doubt   by whoever has deleted it, or found it gone
//	dying      the remover has taken it up, and waits until every section of before
//	           has ended; then he asks the store
//	gone       if the store has it not, and nobody has added it meanwhile
//
// Adding a key takes the marks off. A writer that added it before it was dying has
// linked its record when the remover asks; one that adds it later finds the marks,
// and takes them off, or finds it gone, and adds it.
//
// # Memory
//
// A leaf keeps its keys without what all of them begin with. Measured with 10 M
// random keys of 8 bytes: see BenchmarkTree. A library's tree (tidwall/btree,
// google/btree) has a Go pointer or three for each key, which the collector follows.
//
// Read leaf.go first, then inner.go, then this file.
package ordered

import (
	"bytes"
	mathbits "math/bits"
	"sync/atomic"
	"unsafe"

	"rskv/engine/internal/epoch"
)

// Status is the outcome of a call.
type Status uint8

const (
	// Done: the call has done what it is for.
	Done Status = iota
	// Again: somebody is in the way. Leave the section, yield, come back.
	Again
	// NoMemory: nothing is left of what Grow has allowed.
	NoMemory
)

// spinMax bounds every spin for a latch or the lock: its holder may have been
// preempted.
const spinMax = 128

// Tree is the set. Its methods may be called from any goroutine; all but New, Free,
// Stats, Allow and Check inside a section.
type Tree struct {
	pool pool

	// root is id<<8 | levels of inner nodes above the leaves. Atomic; written by the
	// holder of lock.
	root atomic.Uint64
	_    [64]byte
	lock atomic.Uint32 // 1 while somebody changes the structure
	_    [64]byte

	keys   atomic.Int64
	bytes  atomic.Int64 // of all keys
	leaves atomic.Int64

	doubtful bitmap // leaves with keys in doubt
	thin     bitmap // leaves that could be merged

	// Owned by the holder of lock.
	scratch []byte // one node
	pair    Keys   // those beside a separator
	path    [maxLevels]step
	retired []block // replaced, and perhaps looked at
}

// maxLevels bounds the inner levels: 4 hold more keys than any memory.
const maxLevels = 12

// New returns an empty tree that takes at most so many bytes of memory, and may use
// as many of them as Allow says.
func New(domain *epoch.Domain, most int64) (*Tree, error) {
	t := &Tree{scratch: make([]byte, NodeSize)}
	if err := t.pool.init(domain, most); err != nil {
		return nil, err
	}
	t.doubtful.init(t.pool.nodes())
	t.thin.init(t.pool.nodes())
	return t, nil
}

// start makes the first leaf. There must be memory for it.
func (t *Tree) start() {
	id := t.newNode()
	t.leaf(id).reset(nil, nil, true, 0)
	t.leaves.Store(1)
	t.root.Store(uint64(id) << 8)
}

// Free gives the memory back. Nobody may be in a section.
func (t *Tree) Free() error { return t.pool.memory.Free() }

// Allow lets the tree use so many bytes of its memory in all, as far as they were
// reserved. It may be called at any time, and does not take back what is in use.
func (t *Tree) Allow(bytes int64) {
	t.pool.allowed.Store(min(bytes, t.pool.memory.Size()))
	if t.root.Load() == 0 {
		t.start()
	}
}

// Wants reports whether more memory should be allowed soon: less is left than
// ahead bytes.
func (t *Tree) Wants(ahead int64) bool { return t.pool.left() < ahead }

// Stats of a tree. Sizes in bytes.
type Stats struct {
	Keys     int64
	KeyBytes int64 // of all keys together
	Leaves   int64
	Used     int64 // memory in use
	Taken    int64 // memory that has ever been in use; it is kept
	Allowed  int64
	Reserved int64
}

// Stats returns a snapshot.
func (t *Tree) Stats() Stats {
	return Stats{
		Keys: t.keys.Load(), KeyBytes: t.bytes.Load(), Leaves: t.leaves.Load(), Used: t.pool.used.Load(), Taken: t.pool.next.Load(),
		Allowed: t.pool.allowed.Load(), Reserved: t.pool.memory.Size(),
	}
}

func (t *Tree) leaf(id uint32) *leaf   { return (*leaf)(t.pool.at(id)) }
func (t *Tree) inner(id uint32) *inner { return (*inner)(t.pool.at(id)) }

// tryLock takes the lock, if it can be had soon.
func (t *Tree) tryLock() bool {
	for range spinMax {
		if t.lock.Load() == 0 && t.lock.CompareAndSwap(0, 1) {
			return true
		}
	}
	return false
}

func (t *Tree) unlock() { t.lock.Store(0) }

// find returns the leaf that key belongs to, latched; nil: somebody is in the way.
func (t *Tree) find(key []byte) (uint32, *leaf) {
	for range spinMax {
		id := t.descend(key)
		for {
			l := t.leaf(id)
			if !l.latch() {
				return 0, nil
			}
			if l.gone {
				l.unlatch()
				break // it was merged after the root was read
			}
			if t.within(l, key) {
				return id, l
			}
			id = l.next // it was split after that
			l.unlatch()
		}
	}
	return 0, nil
}

// descend finds the leaf that key belonged to when the root was read.
func (t *Tree) descend(key []byte) uint32 {
	root := t.root.Load()
	id := uint32(root >> 8)
	for level := root & 0xff; level > 0; level-- {
		n := t.inner(id)
		id = n.child(t.rank(n, key))
	}
	return id
}

// Insert makes sure that the set has key, without doubt. added tells whether it had
// it not.
func (t *Tree) Insert(key []byte) (added bool, st Status) { return t.add(key, 0, true) }

// Plant makes sure that the set has key, and leaves its marks; in doubt if dead is
// set. It is for filling a tree from what is not in its order.
func (t *Tree) Plant(key []byte, dead bool) (st Status) {
	mark := uint16(0)
	if dead {
		mark = doubt
	}
	_, st = t.add(key, mark, false)
	return st
}

// add makes sure that the set has key. With clear a key that is there loses its
// marks; it gets the one given in any case.
func (t *Tree) add(key []byte, mark uint16, clear bool) (added bool, st Status) {
	for range spinMax {
		id, l := t.find(key)
		if l == nil {
			return false, Again
		}
		i, there := t.search(l, key)
		if there {
			if has := l.slots()[i].flags() & (doubt | dying); clear && has != 0 || mark&^has != 0 {
				l.mark(i, mark)
			}
		}
		done := inserted
		if !there {
			if done = t.insert(id, l, i, key); done == inserted && mark != 0 {
				l.mark(i, mark)
			}
		}
		if mark != 0 && done == inserted {
			t.doubtful.set(id)
		}
		l.unlatch()
		if there {
			return false, Done
		}
		switch done {
		case inserted:
			t.keys.Add(1)
			t.bytes.Add(int64(len(key)))
			return true, Done
		case noMemory:
			return false, NoMemory
		case lockBusy:
			return false, Again
		}
		// The leaf was split: the key belongs to one of the halves.
	}
	return false, Again
}

// insertion says how an attempt at a latched leaf ended.
type insertion uint8

const (
	inserted insertion = iota
	splitDone
	lockBusy
	noMemory
)

// insert puts key into a latched leaf at place i, or splits that first.
func (t *Tree) insert(id uint32, l *leaf, i int, key []byte) insertion {
	need := l.need(key)
	if need <= l.room() && len(key) <= inlineMax {
		l.put(i, key, 0)
		return inserted
	}
	if !t.tryLock() {
		return lockBusy
	}
	defer t.unlock()
	switch {
	case need > l.room() && l.holes > 0 && need <= l.room()+int(l.holes):
		t.compact(l)
	case need > l.room():
		return t.split(id, l, i, key)
	}
	if len(key) <= inlineMax {
		l.put(i, key, 0)
		return inserted
	}
	if !t.pool.has(t.reserve() + blockNodes(classOf(len(key)))) {
		t.letGo()
		return noMemory
	}
	b, ok := t.pool.keep(key)
	if !ok {
		return noMemory
	}
	l.putLong(i, key, b)
	return inserted
}

// Doubt marks key to be looked at by the remover, if the set has it. It does not
// insist: where somebody is in the way, nothing happens.
func (t *Tree) Doubt(key []byte) {
	id, l := t.find(key)
	if l == nil {
		return
	}
	if i, there := t.search(l, key); there && l.slots()[i].flags()&(doubt|dying) == 0 {
		l.mark(i, doubt)
		t.doubtful.set(id)
	}
	l.unlatch()
}

// Has reports whether the set has key.
func (t *Tree) Has(key []byte) (bool, Status) {
	_, l := t.find(key)
	if l == nil {
		return false, Again
	}
	_, there := t.search(l, key)
	l.unlatch()
	return there, Done
}

// Suspects appends keys in doubt to dst, those of one leaf, so many and hardly more
// bytes at most, and makes them dying. It returns how many. When every section that
// has begun before has ended, the caller finds out what the store has, and tells
// Settle.
func (t *Tree) Suspects(dst *Keys, most, bytes int) int {
	for id := range t.doubtful.each {
		l := t.leaf(id)
		if !l.latch() {
			continue
		}
		n, whole := 0, true
		if !l.gone {
			for i := range l.slots() {
				if l.slots()[i].flags()&doubt == 0 {
					continue
				}
				if n == most || dst.Bytes() >= bytes {
					whole = false
					break
				}
				t.appendKey(dst, l, i)
				l.mark(i, dying)
				n++
			}
		}
		if whole {
			t.doubtful.clear(id)
		}
		l.unlatch()
		if n > 0 {
			return n
		}
	}
	return 0
}

// Settle ends the doubt about a key from Suspects: it is removed, unless the store
// has it or somebody has added it meanwhile.
func (t *Tree) Settle(key []byte, live bool) Status {
	id, l := t.find(key)
	if l == nil {
		return Again
	}
	defer l.unlatch()
	i, there := t.search(l, key)
	switch {
	case !there || l.slots()[i].flags()&dying == 0:
		return Done
	case live:
		l.mark(i, 0)
		return Done
	}
	if l.slots()[i].flags()&long != 0 {
		if !t.tryLock() {
			return Again
		}
		t.pool.give(t.kept(unsafe.Pointer(l), l.slots()[i].ref).block())
		t.unlock()
	}
	l.remove(i)
	t.keys.Add(-1)
	t.bytes.Add(-int64(len(key)))
	if l.live() < mergeBelow {
		t.thin.set(id)
	}
	return Done
}

// text returns the key that a reference of a node holds, without what all keys of a
// leaf share; valid while the node is.
func (t *Tree) text(p unsafe.Pointer, r ref) []byte {
	if r.flags()&long != 0 {
		return t.pool.text(t.kept(p, r))
	}
	return unsafe.Slice((*byte)(unsafe.Add(p, r.off)), r.length())
}

// kept returns where a long key is.
func (t *Tree) kept(p unsafe.Pointer, r ref) kept { return *(*kept)(unsafe.Add(p, r.off)) }

// search finds key in a latched leaf that it belongs to: where it is, or where it
// would be.
func (t *Tree) search(l *leaf, key []byte) (i int, there bool) {
	rest := key[l.prefix:]
	head := headOf(rest)
	slots := l.slots()
	lo, hi := 0, len(slots)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		c := int(slots[mid].head) - int(head)
		if c == 0 {
			c = t.compare(l, slots[mid].ref, key, rest)
		}
		switch {
		case c == 0:
			return mid, true
		case c < 0:
			lo = mid + 1
		default:
			hi = mid
		}
	}
	return lo, false
}

// compare compares a key of a leaf with one of which rest is what the leaf leaves of
// it.
func (t *Tree) compare(l *leaf, r ref, key, rest []byte) int {
	if r.flags()&long != 0 {
		return bytes.Compare(t.text(unsafe.Pointer(l), r), key)
	}
	return bytes.Compare(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(l), r.off)), r.length()), rest)
}

// appendKey appends key i of a latched leaf, whole.
func (t *Tree) appendKey(dst *Keys, l *leaf, i int) {
	r := l.slots()[i].ref
	if r.flags()&long == 0 {
		dst.bytes = append(dst.bytes, t.prefixOf(l)...)
	}
	dst.bytes = append(dst.bytes, t.text(unsafe.Pointer(l), r)...)
	dst.ends = append(dst.ends, len(dst.bytes))
}

// Keys is a list of keys in one piece of memory.
type Keys struct {
	bytes []byte
	ends  []int
}

// Reset empties the list and keeps its memory.
func (k *Keys) Reset() { k.bytes, k.ends = k.bytes[:0], k.ends[:0] }

// Cut drops all but the first n.
func (k *Keys) Cut(n int) { k.ends = k.ends[:n] }

// Len is how many there are.
func (k *Keys) Len() int { return len(k.ends) }

// Bytes is how long they are together.
func (k *Keys) Bytes() int { return len(k.bytes) }

// At returns key number i; it aliases the list.
func (k *Keys) At(i int) []byte {
	from := 0
	if i > 0 {
		from = k.ends[i-1]
	}
	return k.bytes[from:k.ends[i]:k.ends[i]]
}

// bitmap is a set of ids of nodes, changed by anybody.
type bitmap struct{ words []atomic.Uint64 }

func (b *bitmap) init(n int) { b.words = make([]atomic.Uint64, (n+63)/64) }

func (b *bitmap) set(id uint32)   { b.words[id/64].Or(1 << (id % 64)) }
func (b *bitmap) clear(id uint32) { b.words[id/64].And(^uint64(1 << (id % 64))) }

// each calls yield for the ids in the set as it goes by, until it returns false.
func (b *bitmap) each(yield func(uint32) bool) {
	for w := range b.words {
		for bits := b.words[w].Load(); bits != 0; bits &= bits - 1 {
			if !yield(uint32(w*64 + mathbits.TrailingZeros64(bits))) {
				return
			}
		}
	}
}
