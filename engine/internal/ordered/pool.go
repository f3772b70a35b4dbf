package ordered

import (
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"rskv/engine/internal/epoch"
	"rskv/ioring"
)

// pool is the memory of a tree: blocks of 512 bytes to 64 KiB, each a power of two,
// cut from one reservation from its begin on. A node is a block of NodeSize, and
// its id the number of NodeSize bytes before it. What is given back is used again
// for the same size.
type pool struct {
	memory  *ioring.Memory
	epoch   *epoch.Domain
	allowed atomic.Int64 // bytes that may be cut
	next    atomic.Int64 // bytes that have been; written by the holder of the tree's lock
	used    atomic.Int64 // bytes in blocks that are not free; likewise

	// free lists by class, linked through the blocks' first words; 0 ends one.
	// Owned by the holder of the tree's lock.
	free [classes]uint64
	// drained are blocks that nobody can look at any more, to be put into free.
	drained atomic.Pointer[batch]
}

const (
	classes   = 8
	classMin  = 512
	nodeClass = 3 // NodeSize
	// retireBatch is how many blocks wait for one epoch.
	retireBatch = 64
)

var _ [classMin << nodeClass]byte = [NodeSize]byte{}

// block is a piece of the memory.
type block struct {
	at    uint64
	class uint8
}

// batch is blocks that were retired together.
type batch struct {
	blocks []block
	next   *batch
}

func (p *pool) init(domain *epoch.Domain, most int64) (err error) {
	p.epoch = domain
	// Node 0 is never given out: 0 is no leaf.
	most = max(most, 4*NodeSize) &^ (NodeSize - 1)
	if p.memory, err = ioring.AllocMemory(most); err != nil {
		return fmt.Errorf("ordered index: %w", err)
	}
	p.next.Store(NodeSize)
	return nil
}

// nodes is how many ids there may be.
func (p *pool) nodes() int { return int(p.memory.Size() / NodeSize) }

func (p *pool) pointer(at uint64) unsafe.Pointer { return unsafe.Add(p.memory.Pointer(), at) }

// at is the memory of node id.
func (p *pool) at(id uint32) unsafe.Pointer { return p.pointer(uint64(id) * NodeSize) }

// node is the block of node id.
func (p *pool) node(id uint32) block { return block{uint64(id) * NodeSize, nodeClass} }

// left is how many bytes may still be cut.
func (p *pool) left() int64 { return p.allowed.Load() - p.next.Load() }

// has reports whether n nodes can be had.
func (p *pool) has(n int) bool {
	if p.left() >= int64(n)*NodeSize {
		return true
	}
	p.collect()
	n -= int(max(p.left(), 0) / NodeSize)
	for class := nodeClass; class < classes; class++ {
		for at := p.free[class]; at != 0 && n > 0; at = *(*uint64)(p.pointer(at)) {
			n -= 1 << (class - nodeClass)
		}
	}
	return n <= 0
}

// take returns a free block of a class; false: there is none.
func (p *pool) take(class int) (block, bool) {
	if p.free[class] == 0 {
		p.collect()
	}
	size := int64(classMin) << class
	if at := p.free[class]; at != 0 {
		p.free[class] = *(*uint64)(p.pointer(at))
		p.used.Add(size)
		return block{at, uint8(class)}, true
	}
	if class < nodeClass {
		return p.cut(class)
	}
	at := p.next.Load()
	if at+size > p.allowed.Load() {
		return p.halve(class)
	}
	p.next.Store(at + size)
	p.used.Add(size)
	return block{uint64(at), uint8(class)}, true
}

// cut makes smaller blocks of one of NodeSize.
func (p *pool) cut(class int) (block, bool) {
	whole, ok := p.take(nodeClass)
	if !ok {
		return block{}, false
	}
	p.used.Add(-NodeSize)
	size := uint64(classMin) << class
	for off := size; off < NodeSize; off += size {
		p.link(block{whole.at + off, uint8(class)})
	}
	p.used.Add(int64(size))
	return block{whole.at, uint8(class)}, true
}

// halve makes a block of a larger one that is free. They are not put together again.
func (p *pool) halve(class int) (block, bool) {
	from := class + 1
	for ; from < classes && p.free[from] == 0; from++ {
	}
	if from >= classes {
		return block{}, false
	}
	at := p.free[from]
	p.free[from] = *(*uint64)(p.pointer(at))
	for from--; from >= class; from-- {
		p.link(block{at + classMin<<from, uint8(from)})
	}
	p.used.Add(int64(classMin) << class)
	return block{at, uint8(class)}, true
}

// link puts a block into its free list.
func (p *pool) link(b block) {
	*(*uint64)(p.pointer(b.at)) = p.free[b.class]
	p.free[b.class] = b.at
}

// give takes a block back that nobody can look at.
func (p *pool) give(b block) {
	p.link(b)
	p.used.Add(-int64(classMin) << b.class)
}

// collect gives back what was retired and has drained.
func (p *pool) collect() {
	for b := p.drained.Swap(nil); b != nil; b = b.next {
		for _, one := range b.blocks {
			p.give(one)
		}
	}
}

// drain is the epoch action of a batch.
func (p *pool) drain(b *batch) {
	for {
		b.next = p.drained.Load()
		if p.drained.CompareAndSwap(b.next, b) {
			return
		}
	}
}

// blockNodes is how many nodes a block of a class is, at least one.
func blockNodes(class int) int { return max(1, classMin<<class/NodeSize) }

// classOf is the class of a long key of n bytes.
func classOf(n int) int { return max(bits.Len(uint(n-1))-bits.Len(classMin-1), 0) }

// keep stores a long key.
func (p *pool) keep(key []byte) (kept, bool) {
	b, ok := p.take(classOf(len(key)))
	if !ok {
		return kept{}, false
	}
	copy(unsafe.Slice((*byte)(p.pointer(b.at)), len(key)), key)
	return kept{at: b.at, size: uint32(len(key))}, true
}

// text is a long key.
func (p *pool) text(k kept) []byte { return unsafe.Slice((*byte)(p.pointer(k.at)), int(k.size)) }

// block is where it is.
func (k kept) block() block { return block{k.at, uint8(classOf(int(k.size)))} }

// newNode returns a node. The caller has made sure that there is one.
func (t *Tree) newNode() uint32 {
	b, ok := t.pool.take(nodeClass)
	if !ok {
		panic("ordered: no node is left of those that were there")
	}
	return uint32(b.at / NodeSize)
}

// retire takes a block back when every section has ended that may look at it. It may
// be reached until the root is published, so that comes before the epoch: see release.
// The caller holds the lock.
func (t *Tree) retire(b block) { t.retired = append(t.retired, b) }

// release lets go of what was retired, if it is much. The caller holds the lock, and
// has published what takes its place.
func (t *Tree) release() {
	if len(t.retired) >= retireBatch {
		t.letGo()
	}
}

// letGo hands what was retired to the epoch, as release does.
func (t *Tree) letGo() {
	if len(t.retired) == 0 {
		return
	}
	done := &batch{blocks: t.retired}
	t.retired = make([]block, 0, retireBatch)
	t.pool.epoch.Bump(func() { t.pool.drain(done) })
}
