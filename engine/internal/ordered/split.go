package ordered

import (
	"fmt"
	"unsafe"
)

// split makes two leaves of a latched one that has no room for key, which belongs to
// place i of it. The caller holds the lock.
func (t *Tree) split(id uint32, l *leaf, i int, key []byte) insertion {
	path, at := t.climb(key)
	if at != id {
		panic(fmt.Sprintf("ordered: key %q is in leaf %d and leads to leaf %d", key, id, at))
	}
	m := t.middle(l)
	if l.open && i == int(l.count) {
		m = t.full(l, key) // keys that rise fill their leaves
	}
	sep := t.between(l, m, key)
	bounds, ok := t.bounds(sep, graftNodes(len(path))+1+t.reserve())
	if !ok {
		return noMemory
	}
	rightID := t.newNode()
	right := t.leaf(rightID)
	right.word = 0
	low, high := t.boundOf(l, l.low), t.boundOf(l, l.high)
	right.reset(&bounds[0], &high, l.open, t.common(&bounds[0], &high, l.open))
	t.fill(right, l, m, int(l.count))
	right.next = l.next
	left := t.scratchLeaf()
	left.reset(&low, &bounds[1], false, t.common(&low, &bounds[1], false))
	t.fill(left, l, 0, m)
	left.next = rightID
	t.replace(l, left)
	t.leaves.Add(1)
	t.flagDoubt(rightID, right)
	t.graft(path, id, &bounds[2], rightID)
	t.release()
	return splitDone
}

// middle is the place at which a leaf's texts are halved, at least one key to each
// side.
func (t *Tree) middle(l *leaf) int {
	half, n := 0, 0
	for _, r := range l.slots() {
		half += slotSize + r.length()
	}
	for i, r := range l.slots() {
		if n += slotSize + r.length(); 2*n >= half {
			return min(max(i, 1), int(l.count)-1)
		}
	}
	return int(l.count) - 1
}

// full is the place at which the last leaf is cut before key, so that what is left of
// it is full, and has room for its new bound.
func (t *Tree) full(l *leaf, key []byte) int {
	low := t.boundOf(l, l.low)
	least := t.middle(l)
	for m := int(l.count); m > least; m-- {
		sep := bound{text: t.between(l, m, key)}
		size := leafHead + l.low.length() + min(len(sep.text), max(inlineMax, keptSize))
		if size+l.size(0, m, t.common(&low, &sep, false)) <= NodeSize {
			return m
		}
	}
	return least
}

// between is the shortest key that separates those before place m of a leaf from
// those behind it; where m is the end, from key.
func (t *Tree) between(l *leaf, m int, key []byte) []byte {
	t.pair.Reset()
	t.appendKey(&t.pair, l, m-1)
	if m < int(l.count) {
		t.appendKey(&t.pair, l, m)
		key = t.pair.At(1)
	}
	return key[:shared(t.pair.At(0), key)+1]
}

func shared(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// bounds makes three of a separator: for the leaf that begins there, the one that
// ends there, and the node above. ok is false if there is no memory for them and n
// nodes.
func (t *Tree) bounds(sep []byte, n int) (b [3]bound, ok bool) {
	made := 0
	for ok = true; ok && made < len(b) && len(sep) > inlineMax; {
		if b[made].kept, ok = t.pool.keep(sep); ok {
			made++
		}
	}
	if made == 0 {
		for i := range b {
			b[i].text = sep
		}
	}
	if ok && t.pool.has(n) {
		return b, true
	}
	for _, one := range b[:made] {
		t.pool.give(one.kept.block())
	}
	t.letGo() // for the next attempt
	return b, false
}

// boundOf takes a bound of a leaf for another one.
func (t *Tree) boundOf(l *leaf, r ref) bound {
	if r.flags()&long != 0 {
		return bound{kept: t.kept(unsafe.Pointer(l), r)}
	}
	return bound{text: t.text(unsafe.Pointer(l), r)}
}

// common is how many bytes all keys between two bounds share.
func (t *Tree) common(low, high *bound, open bool) int {
	if open {
		return 0
	}
	return min(shared(t.boundText(low), t.boundText(high)), inlineMax)
}

func (t *Tree) boundText(b *bound) []byte {
	if b.text == nil && b.kept.size > 0 {
		return t.pool.text(b.kept)
	}
	return b.text
}

// prefixOf is what all keys of a leaf share.
func (t *Tree) prefixOf(l *leaf) []byte { return t.text(unsafe.Pointer(l), l.low)[:l.prefix] }

// fill appends keys of one leaf to another.
func (t *Tree) fill(to, from *leaf, begin, until int) {
	less := int(to.prefix) - int(from.prefix)
	for _, s := range from.slots()[begin:until] {
		text := from.bytes(int(s.off), int(s.off)+s.length())
		switch {
		case s.flags()&long != 0:
			head := headOf(t.text(unsafe.Pointer(from), s.ref)[to.prefix:])
			to.insert(int(to.count), to.add(text, s.flags()), head)
		case less >= 0:
			to.insert(int(to.count), to.add(text[less:], s.flags()), headOf(text[less:]))
		default:
			a := to.add(text, s.flags())
			b := to.add(t.prefixOf(from)[to.prefix:], 0)
			r := ref{b.off, a.size + b.size}
			to.insert(int(to.count), r, headOf(to.bytes(int(r.off), int(r.off)+r.length())))
		}
	}
}

func (t *Tree) scratchLeaf() *leaf { return (*leaf)(unsafe.Pointer(unsafe.SliceData(t.scratch))) }

// replace gives a latched leaf the content of another.
func (t *Tree) replace(l, by *leaf) {
	const word = unsafe.Sizeof(l.word)
	copy(l.bytes(int(word), NodeSize), by.bytes(int(word), NodeSize))
}

// compact moves a latched leaf's texts together. The caller holds the lock.
func (t *Tree) compact(l *leaf) {
	low, high := t.boundOf(l, l.low), t.boundOf(l, l.high)
	n := t.scratchLeaf()
	n.reset(&low, &high, l.open, int(l.prefix))
	t.fill(n, l, 0, int(l.count))
	n.next = l.next
	t.replace(l, n)
}

// flagDoubt notes that a leaf has keys in doubt, if it has.
func (t *Tree) flagDoubt(id uint32, l *leaf) {
	for _, r := range l.slots() {
		if r.flags()&doubt != 0 {
			t.doubtful.set(id)
			return
		}
	}
}

// Tidy merges a leaf that holds little with a neighbour, and reports whether there
// may be another. Only the remover calls it.
func (t *Tree) Tidy() (more bool) {
	for id := range t.thin.each {
		if !t.tryLock() {
			return true
		}
		defer t.unlock()
		return t.merge(id)
	}
	return false
}

// merge merges leaf id with a neighbour under the same parent, if they fit into one.
// It reports whether it is worth going on at once.
func (t *Tree) merge(id uint32) bool {
	l := t.leaf(id)
	if !l.latch() {
		return true
	}
	low := append([]byte(nil), t.text(unsafe.Pointer(l), l.low)...)
	l.unlatch()
	t.thin.clear(id)
	path, at := t.climb(low)
	if at != id {
		panic(fmt.Sprintf("ordered: leaf %d begins at %q, which leads to leaf %d", id, low, at))
	}
	if len(path) == 0 {
		return true
	}
	over := t.inner(path[len(path)-1].id)
	sep := path[len(path)-1].rank
	if sep == int(over.count) {
		sep--
	}
	if sep < 0 {
		return true
	}
	if !t.pool.has(pruneNodes(len(path))) {
		t.thin.set(id)
		t.letGo()
		return false
	}
	leftID, rightID := over.child(sep), over.child(sep+1)
	left, right := t.leaf(leftID), t.leaf(rightID)
	if !left.latch() {
		t.thin.set(id)
		return true
	}
	defer left.unlatch()
	if !right.latch() {
		t.thin.set(id)
		return true
	}
	defer right.unlatch()
	if t.mergeInto(leftID, left, rightID, right) {
		t.prune(path, sep)
		t.release()
	}
	return true
}

// mergeInto takes the keys of right into left, both latched, if they fit.
func (t *Tree) mergeInto(leftID uint32, left *leaf, rightID uint32, right *leaf) bool {
	low, high := t.boundOf(left, left.low), t.boundOf(right, right.high)
	prefix := t.common(&low, &high, right.open)
	size := leafHead + left.low.length() + right.high.length() +
		left.size(0, int(left.count), prefix) + right.size(0, int(right.count), prefix)
	most := mergeMost
	if left.count == 0 || right.count == 0 {
		most = NodeSize
	}
	if size > most {
		return false
	}
	n := t.scratchLeaf()
	n.reset(&low, &high, right.open, prefix)
	t.fill(n, left, 0, int(left.count))
	t.fill(n, right, 0, int(right.count))
	n.next = right.next
	for _, b := range []bound{t.boundOf(left, left.high), t.boundOf(right, right.low)} {
		if b.text == nil && b.kept.size > 0 {
			t.pool.give(b.kept.block()) // bounds are looked at under the latch only
		}
	}
	t.replace(left, n)
	right.gone = true
	t.doubtful.clear(rightID)
	t.thin.clear(rightID)
	t.flagDoubt(leftID, left)
	if left.live() < mergeBelow {
		t.thin.set(leftID)
	}
	t.leaves.Add(-1)
	t.retire(t.pool.node(rightID))
	return true
}
