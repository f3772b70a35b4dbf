package ordered

import (
	"sync/atomic"
	"unsafe"
)

// NodeSize is the size of a node in bytes.
const NodeSize = 4096

// leaf is a node with keys, in order:
//
//	| head | slots, 6 bytes each -->    <-- texts: bounds, keys without their prefix |
//
// Its bounds say what belongs into it: low <= key < high. All of that begins with
// what low and high both begin with, so that is left out. Everything but word is
// guarded by the latch.
type leaf struct {
	word   uint32 // atomic: 1 while latched
	next   uint32 // the leaf to the right, 0: none
	count  uint16
	heap   uint16 // where the texts begin
	holes  uint16 // bytes of texts that nobody refers to
	prefix uint16 // how much all keys share
	low    ref
	high   ref
	open   bool // there is no high: the last leaf
	gone   bool // merged into another
	_      [2]byte
}

const (
	leafHead = 28
	slotSize = 6
	// inlineMax is the longest key in bytes that a node holds itself.
	inlineMax = 256
	// mergeBelow is how many bytes a leaf holds at most to be looked at for a
	// merge, mergeMost how many the merged one may hold.
	mergeBelow = NodeSize / 4
	mergeMost  = NodeSize / 4 * 3
)

var _ [leafHead]byte = [unsafe.Sizeof(leaf{})]byte{}

// ref says where a text is in its node. size is its length, and flags above it.
type ref struct {
	off  uint16
	size uint16
}

// Flags of a ref.
const (
	long  = 1 << 13 // the text is a kept: the key is elsewhere
	dying = 1 << 14 // of a leaf's key: see the package comment
	doubt = 1 << 15

	sizeMask = long - 1
)

func (r ref) length() int   { return int(r.size & sizeMask) }
func (r ref) flags() uint16 { return r.size &^ sizeMask }

// slot is a key of a leaf. head is the first two bytes of what is left of the key
// without the prefix: most comparisons need no more, and meet few cache lines.
type slot struct {
	ref
	head uint16
}

var _ [slotSize]byte = [unsafe.Sizeof(slot{})]byte{}

// headOf is the head of a key, without its prefix.
func headOf(rest []byte) uint16 {
	switch len(rest) {
	case 0:
		return 0
	case 1:
		return uint16(rest[0]) << 8
	}
	return uint16(rest[0])<<8 | uint16(rest[1])
}

// kept says where a long key is.
type kept struct {
	at   uint64 // offset in the pool's memory
	size uint32
	_    uint32
}

const keptSize = 16

var _ [keptSize]byte = [unsafe.Sizeof(kept{})]byte{}

// latch takes the latch, if it can be had soon.
func (l *leaf) latch() bool {
	for range spinMax {
		if atomic.LoadUint32(&l.word) == 0 && atomic.CompareAndSwapUint32(&l.word, 0, 1) {
			return true
		}
	}
	return false
}

// unlatch publishes what was changed.
func (l *leaf) unlatch() { atomic.StoreUint32(&l.word, 0) }

func (l *leaf) at(off int) unsafe.Pointer { return unsafe.Add(unsafe.Pointer(l), off) }

// slots are the keys.
func (l *leaf) slots() []slot { return unsafe.Slice((*slot)(l.at(leafHead)), int(l.count)) }

// bytes is the memory from off to until.
func (l *leaf) bytes(off, until int) []byte {
	return unsafe.Slice((*byte)(l.at(off)), until-off)
}

// room is how many bytes are free between slots and texts.
func (l *leaf) room() int { return int(l.heap) - leafHead - slotSize*int(l.count) }

// live is how many bytes are in use.
func (l *leaf) live() int { return NodeSize - l.room() - int(l.holes) }

// need is how many bytes a key takes.
func (l *leaf) need(key []byte) int {
	if len(key) > inlineMax {
		return slotSize + keptSize
	}
	return slotSize + len(key) - int(l.prefix)
}

// size is how many bytes keys of this leaf take in one that leaves out a prefix of
// another length.
func (l *leaf) size(from, until, prefix int) (n int) {
	for _, r := range l.slots()[from:until] {
		if n += slotSize + r.length(); r.flags()&long == 0 {
			n += int(l.prefix) - prefix
		}
	}
	return n
}

// add writes a text. There must be room for it.
func (l *leaf) add(text []byte, flags uint16) ref {
	if len(text) == 0 {
		return ref{leafHead, flags} // behind the node's end is somebody else's memory
	}
	l.heap -= uint16(len(text))
	copy(l.bytes(int(l.heap), int(l.heap)+len(text)), text)
	return ref{l.heap, uint16(len(text)) | flags}
}

// insert makes a key number i.
func (l *leaf) insert(i int, r ref, head uint16) {
	l.count++
	s := l.slots()
	copy(s[i+1:], s[i:])
	s[i] = slot{r, head}
}

// put makes a key that fits into the node number i.
func (l *leaf) put(i int, key []byte, flags uint16) {
	rest := key[l.prefix:]
	l.insert(i, l.add(rest, flags), headOf(rest))
}

// putLong does so with one that is kept elsewhere.
func (l *leaf) putLong(i int, key []byte, k kept) {
	l.insert(i, l.add(k.bytes(), long), headOf(key[l.prefix:]))
}

func (k *kept) bytes() []byte { return unsafe.Slice((*byte)(unsafe.Pointer(k)), keptSize) }

// remove takes key i out.
func (l *leaf) remove(i int) {
	s := l.slots()
	l.holes += uint16(s[i].length())
	copy(s[i:], s[i+1:])
	l.count--
}

// mark makes flags the marks of key i.
func (l *leaf) mark(i int, flags uint16) {
	s := l.slots()
	s[i].size = s[i].size&(sizeMask|long) | flags
}

// bound is a bound of a leaf, or a separator of an inner node: a key, or where it
// is kept.
type bound struct {
	text []byte
	kept kept // if text is nil
}

// content is how the bound is stored.
func (b *bound) content() (text []byte, flags uint16) {
	if b.text == nil && b.kept.size > 0 {
		return b.kept.bytes(), long
	}
	return b.text, 0
}

// reset makes an empty leaf with these bounds; open: there is no high. shared is
// how much they have in common.
func (l *leaf) reset(low, high *bound, open bool, shared int) {
	*l = leaf{word: l.word, heap: NodeSize, open: open}
	if low != nil {
		l.low = l.add(low.content())
	}
	if high != nil && !open {
		l.high = l.add(high.content())
	}
	l.prefix = uint16(shared)
}
