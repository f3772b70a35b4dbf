package ioring

import (
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"
)

const (
	// blockSize is the unit of staging memory: the strictest alignment a device
	// asks for, and the size of nearly all cold reads.
	blockSize = 4096
	// blocksPerWord is how many blocks one word of the bitmap describes.
	blocksPerWord = 64
	// wordBytes is the memory one word describes: 256 KiB.
	wordBytes = blockSize * blocksPerWord
	// budgetMin leaves room for at least one read of 256 KiB.
	budgetMin = wordBytes
)

// Buffers is the staging memory for reads: one slab of fixed size, cut on demand
// into runs of 4 KiB blocks. It never grows, never blocks and takes no lock.
//
//	bitmap   word 0            word 1            ...   word W-1
//	         64 blocks         64 blocks               64 blocks
//	         runs of 1..64 blocks, first fit           runs of whole words, last fit
//	         never across words  ->                 <-
//
// A bit is 1 while its block is out. Whoever turns it from 0 to 1 owns the block
// until Put turns it back. Small runs are looked for from the front, where the
// slab is registered with the ring, long ones from the back, so that they
// seldom meet.
type Buffers struct {
	memory *Memory
	bytes  []byte          // immutable; the memory's bytes
	bitmap []atomic.Uint64 // written by whoever takes or returns blocks
	runs   []uint32        // runs[b]: blocks in the run that begins at b, 0 if none; owned by that run's holder
	budget int64
}

// NewBuffers reserves budget bytes, rounded down to 4 KiB blocks; at least
// 256 KiB and at most 128 GiB. The memory is populated as it is first used.
func NewBuffers(budget int64) (*Buffers, error) {
	if budget < budgetMin || budget > 1<<37 {
		return nil, fmt.Errorf("staging memory: %d bytes, want %d to %d", budget, budgetMin, int64(1)<<37)
	}
	blocks := int(budget / blockSize)
	memory, err := AllocMemory(int64(blocks) * blockSize)
	if err != nil {
		return nil, fmt.Errorf("staging memory: %w", err)
	}
	words := (blocks + blocksPerWord - 1) / blocksPerWord
	b := &Buffers{
		memory: memory,
		bytes:  memory.Bytes(),
		bitmap: make([]atomic.Uint64, words),
		runs:   make([]uint32, blocks),
		budget: int64(blocks) * blockSize,
	}
	if rest := blocks % blocksPerWord; rest != 0 {
		b.bitmap[words-1].Store(^uint64(0) << rest) // blocks that do not exist are never free
	}
	return b, nil
}

// Budget is the size of the staging memory in bytes.
func (b *Buffers) Budget() int64 { return b.budget }

// InUse is the number of bytes out at the moment, counted in whole classes.
func (b *Buffers) InUse() int64 {
	out := 0
	for i := range b.bitmap {
		out += bits.OnesCount64(b.bitmap[i].Load())
	}
	absent := len(b.bitmap)*blocksPerWord - len(b.runs)
	return int64(out-absent) * blockSize
}

// Get returns n bytes aligned to 4 KiB, or nil when there is no room for them:
// the caller answers "busy" or waits for a buffer of its own to come back. The
// capacity is n rounded up to its class: 4, 8, 16, 32, 64, 128 or 192 KiB, then
// multiples of 256 KiB. The content is arbitrary.
func (b *Buffers) Get(n int) []byte {
	if n <= 0 {
		panic(fmt.Sprintf("ioring: a staging buffer of %d bytes", n))
	}
	if int64(n) > b.budget {
		return nil
	}
	blocks := classBlocks(n)
	var block int
	if blocks < blocksPerWord {
		block = b.takeRun(blocks)
	} else {
		block = b.takeWords(blocks / blocksPerWord)
	}
	if block < 0 {
		return nil
	}
	b.runs[block] = uint32(blocks)
	off := block * blockSize
	return b.bytes[off : off+n : off+blocks*blockSize]
}

// Put returns what Get gave, or any slice that begins where that one did.
func (b *Buffers) Put(buf []byte) {
	block, ok := b.blockOf(buf)
	if !ok || b.runs[block] == 0 {
		panic("ioring: Put of something that is not a staging buffer in use")
	}
	blocks := int(b.runs[block])
	b.runs[block] = 0
	// From each store on the blocks belong to whoever takes them.
	if blocks < blocksPerWord {
		mask := runMask(blocks) << (block % blocksPerWord)
		b.bitmap[block/blocksPerWord].And(^mask)
		return
	}
	for w := block / blocksPerWord; blocks > 0; w, blocks = w+1, blocks-blocksPerWord {
		b.bitmap[w].Store(0)
	}
}

// Free gives the memory back. No buffer may be out, and none be asked for again.
func (b *Buffers) Free() error { return b.memory.Free() }

// blockOf says which block buf begins at.
func (b *Buffers) blockOf(buf []byte) (int, bool) {
	if cap(buf) == 0 {
		return 0, false
	}
	off := uintptr(unsafe.Pointer(unsafe.SliceData(buf))) - uintptr(b.memory.Pointer())
	if off >= uintptr(len(b.bytes)) || off%blockSize != 0 {
		return 0, false
	}
	return int(off / blockSize), true
}

// takeRun takes the first free run of fewer than 64 blocks that lies in one
// word, aligned to its own power of two. It returns -1 if there is none.
func (b *Buffers) takeRun(blocks int) int {
	step := 1 << bits.Len(uint(blocks-1))
	mask := runMask(blocks)
	for w := range b.bitmap {
		word := &b.bitmap[w]
		for old := word.Load(); old != ^uint64(0); old = word.Load() {
			shift := freeRun(old, mask, step)
			if shift < 0 {
				break
			}
			if word.CompareAndSwap(old, old|mask<<shift) {
				return w*blocksPerWord + shift
			}
		}
	}
	return -1
}

// freeRun finds the lowest multiple of step at which every bit of mask is free
// in word, or -1.
func freeRun(word, mask uint64, step int) int {
	if mask == 1 {
		return bits.TrailingZeros64(^word)
	}
	for shift := 0; shift < blocksPerWord; shift += step {
		if word&(mask<<shift) == 0 {
			return shift
		}
	}
	return -1
}

// takeWords takes the last run of count wholly free words. Two callers that
// block each other may both give up although one would have fitted; the answer
// is then the same as a moment later: busy.
func (b *Buffers) takeWords(count int) int {
	taken := 0
	for w := len(b.bitmap) - 1; w >= 0; w-- {
		if !b.bitmap[w].CompareAndSwap(0, ^uint64(0)) {
			b.giveWords(w+1, taken)
			taken = 0
			continue
		}
		if taken++; taken == count {
			return w * blocksPerWord
		}
	}
	b.giveWords(0, taken)
	return -1
}

func (b *Buffers) giveWords(first, count int) {
	for w := first; w < first+count; w++ {
		b.bitmap[w].Store(0)
	}
}

// classBlocks rounds n bytes up to a class, in blocks.
func classBlocks(n int) int {
	blocks := (n + blockSize - 1) / blockSize
	switch {
	case blocks <= 32:
		return 1 << bits.Len(uint(blocks-1))
	case blocks <= 48:
		return 48
	}
	return (blocks + blocksPerWord - 1) / blocksPerWord * blocksPerWord
}

func runMask(blocks int) uint64 { return 1<<blocks - 1 }
