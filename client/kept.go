package client

import "slices"

// kept is the log of a session's writes that are not known to be durable, in the order of their
// numbers, so that they can be sent again:
//
//	chunks[0]             chunks[1]
//	│ w1 w2 w3 … wn │     │ wn+1 … w(next-1)   room │
//	  first                                          next is the number of the write to come
//
// Adding a write is one copy into the last chunk. Trimming drops whole chunks: up to a chunk of
// writes is held longer than need be, which costs less than looking at each.
//
// All fields are guarded by the Client's mu, and so must be the calls.
type kept struct {
	chunks []*keptChunk
	spare  []*keptChunk // at most spareChunks, empty
	next   uint64       // number of the write to come; the first is 1
	fates  map[uint64]fate
}

// keptChunk holds a run of writes.
type keptChunk struct {
	first uint64 // number of its first write
	buf   []byte // the writes, one behind the other
	ends  []int  // where each ends in buf
}

// fate is what is special about a write in the log. Nearly all have none: they were answered, or
// their caller waits for the answer.
type fate uint8

const (
	// fateVoid: it had no effect and must not have one later. Refused, or its caller was told so.
	fateVoid fate = iota + 1
	// fateOrphan: its caller was told that the answer is lost.
	fateOrphan
)

const (
	chunkSize   = 256 << 10 // bytes; a write that is longer gets a chunk of its own
	spareChunks = 16        // kept for reuse: what an ordinary load turns over between two commits
)

// add appends a write and returns its number.
func (k *kept) add(message []byte) uint64 {
	var c *keptChunk
	if n := len(k.chunks); n > 0 {
		c = k.chunks[n-1]
	}
	if c == nil || len(c.buf)+len(message) > cap(c.buf) {
		c = k.newChunk(len(message))
	}
	c.buf = append(c.buf, message...)
	c.ends = append(c.ends, len(c.buf))
	k.next++
	return k.next - 1
}

func (k *kept) newChunk(need int) *keptChunk {
	var c *keptChunk
	if n := len(k.spare); n > 0 && need <= chunkSize {
		c, k.spare = k.spare[n-1], k.spare[:n-1]
	} else {
		c = &keptChunk{buf: make([]byte, 0, max(need, chunkSize))}
	}
	c.first = k.next
	k.chunks = append(k.chunks, c)
	return c
}

// first is the number of the oldest write in the log, next if there is none.
func (k *kept) first() uint64 {
	if len(k.chunks) == 0 {
		return k.next
	}
	return k.chunks[0].first
}

// trim drops writes up to number, as far as they fill chunks, and returns how many there were and
// their bytes.
func (k *kept) trim(number uint64) (gone load) {
	n := 0
	for _, c := range k.chunks {
		if c.first+uint64(len(c.ends))-1 > number {
			break
		}
		gone.add(load{len(c.ends), len(c.buf)})
		if cap(c.buf) == chunkSize && len(k.spare) < spareChunks {
			c.buf, c.ends = c.buf[:0], c.ends[:0]
			k.spare = append(k.spare, c)
		}
		n++
	}
	k.chunks = slices.Delete(k.chunks, 0, n)
	for number := range k.fates {
		if number < k.first() {
			delete(k.fates, number)
		}
	}
	return gone
}

// all calls f for every write in the order of the numbers. The message aliases the log.
func (k *kept) all(f func(number uint64, message []byte)) {
	for _, c := range k.chunks {
		begin := 0
		for i, end := range c.ends {
			f(c.first+uint64(i), c.buf[begin:end:end])
			begin = end
		}
	}
}

// mark gives a write a fate. One that is not in the log any more needs none.
func (k *kept) mark(number uint64, f fate) {
	if number < k.first() {
		return
	}
	if k.fates == nil {
		k.fates = map[uint64]fate{}
	}
	k.fates[number] = f
}
