package ordered

import (
	"bytes"
	"unsafe"
)

// Page appends keys that are not below from to dst, in their order, those of one
// leaf and so many at most. next, in memory of its own or of the one given, is where
// to go on; at the end there is none.
func (t *Tree) Page(from []byte, most int, dst *Keys, memory []byte) (next []byte, st Status) {
	_, l := t.find(from)
	if l == nil {
		return nil, Again
	}
	defer l.unlatch()
	i, _ := t.search(l, from)
	for ; i < int(l.count); i++ {
		if most--; most < 0 {
			return t.copyKey(l, i, memory), Done
		}
		t.appendKey(dst, l, i)
	}
	if l.open {
		return nil, Done
	}
	return append(memory[:0], t.text(unsafe.Pointer(l), l.high)...), Done
}

// PageBefore is Page in the other direction: keys below before, or from the last one
// on if before is nil, falling. next is what to go on below.
func (t *Tree) PageBefore(before []byte, most int, dst *Keys, memory []byte) (next []byte, st Status) {
	l := t.findBefore(before)
	if l == nil {
		return nil, Again
	}
	defer l.unlatch()
	i := int(l.count)
	if before != nil && t.within(l, before) {
		i, _ = t.search(l, before)
	}
	for i--; i >= 0; i-- {
		if most--; most < 0 {
			return t.copyKey(l, i+1, memory), Done
		}
		t.appendKey(dst, l, i)
	}
	low := t.text(unsafe.Pointer(l), l.low)
	if len(low) == 0 {
		return nil, Done
	}
	return append(memory[:0], low...), Done
}

// within reports whether key lies between the bounds of a latched leaf.
func (t *Tree) within(l *leaf, key []byte) bool {
	return l.open || bytes.Compare(key, t.text(unsafe.Pointer(l), l.high)) < 0
}

// findBefore returns the leaf with the last key below before, latched; nil: somebody
// is in the way.
func (t *Tree) findBefore(before []byte) *leaf {
	for range spinMax {
		root := t.root.Load()
		id := uint32(root >> 8)
		for level := root & 0xff; level > 0; level-- {
			n := t.inner(id)
			rank := int(n.count)
			if before != nil {
				rank = t.rankBelow(n, before)
			}
			id = n.child(rank)
		}
		for {
			l := t.leaf(id)
			if !l.latch() {
				return nil
			}
			if l.gone {
				l.unlatch()
				break
			}
			if l.open || before != nil && bytes.Compare(before, t.text(unsafe.Pointer(l), l.high)) <= 0 {
				return l
			}
			id = l.next
			l.unlatch()
		}
	}
	return nil
}

// copyKey returns key i of a latched leaf.
func (t *Tree) copyKey(l *leaf, i int, memory []byte) []byte {
	k := Keys{bytes: memory[:0]}
	t.appendKey(&k, l, i)
	return k.bytes
}
