package ordered

import (
	"bytes"
	"unsafe"
)

// inner is a node above the leaves. It is written once, and never changed after the
// root that leads to it was published.
//
//	| head | entries, 8 bytes each -->             <-- texts of the separators |
//
// The keys below the first separator are under first, those from a separator on
// under its child.
type inner struct {
	first uint32
	count uint16 // of entries
	heap  uint16
}

// entry is a separator and the node with the keys from it on.
type entry struct {
	ref
	child uint32
}

const (
	innerHead = 8
	entrySize = 8
)

var (
	_ [innerHead]byte = [unsafe.Sizeof(inner{})]byte{}
	_ [entrySize]byte = [unsafe.Sizeof(entry{})]byte{}
)

func (n *inner) entries() []entry {
	return unsafe.Slice((*entry)(unsafe.Add(unsafe.Pointer(n), innerHead)), int(n.count))
}

// child is child number i, of count + 1.
func (n *inner) child(i int) uint32 {
	if i == 0 {
		return n.first
	}
	return n.entries()[i-1].child
}

func (n *inner) setChild(i int, id uint32) {
	if i == 0 {
		n.first = id
	} else {
		n.entries()[i-1].child = id
	}
}

func (n *inner) room() int { return int(n.heap) - innerHead - entrySize*int(n.count) }

// raw is the text of a separator as it is stored.
func (n *inner) raw(r ref) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(n), r.off)), r.length())
}

// insert puts a separator and its child before entry i. There must be room.
func (n *inner) insert(i int, text []byte, flags uint16, child uint32) {
	n.heap -= uint16(len(text))
	copy(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(n), n.heap)), len(text)), text)
	n.count++
	e := n.entries()
	copy(e[i+1:], e[i:])
	e[i] = entry{ref{n.heap, uint16(len(text)) | flags}, child}
}

// take makes n a node with entries from to until of another, over first.
func (n *inner) take(of *inner, first uint32, from, until int) {
	*n = inner{first: first, heap: NodeSize}
	n.append(of, from, until)
}

// append adds entries of another node.
func (n *inner) append(of *inner, from, until int) {
	for _, e := range of.entries()[from:until] {
		n.insert(int(n.count), of.raw(e.ref), e.flags(), e.child)
	}
}

// used is how many bytes its entries take.
func (n *inner) used() int { return NodeSize - int(n.heap) + entrySize*int(n.count) }

// rank is how many separators of n are not above key.
func (t *Tree) rank(n *inner, key []byte) int {
	e := n.entries()
	lo, hi := 0, len(e)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if bytes.Compare(t.text(unsafe.Pointer(n), e[mid].ref), key) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// rankBelow is how many separators of n are below key.
func (t *Tree) rankBelow(n *inner, key []byte) int {
	e := n.entries()
	lo, hi := 0, len(e)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if bytes.Compare(t.text(unsafe.Pointer(n), e[mid].ref), key) < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// step is one inner node on the way down, and which of its children comes next.
type step struct {
	id   uint32
	rank int
}

// climb notes the way to the leaf of key. The caller holds the lock.
func (t *Tree) climb(key []byte) (path []step, leaf uint32) {
	root := t.root.Load()
	id := uint32(root >> 8)
	path = t.path[:0]
	for level := root & 0xff; level > 0; level-- {
		n := t.inner(id)
		s := step{id, t.rank(n, key)}
		path = append(path, s)
		id = n.child(s.rank)
	}
	return path, id
}

// graft makes right the node behind the one that path leads to, with sep between
// them. The caller holds the lock and has made sure of memory, see graftNodes.
func (t *Tree) graft(path []step, below uint32, sep *bound, right uint32) {
	text, flags := sep.content()
	left, split := below, true
	for k := len(path) - 1; k >= 0; k-- {
		p := path[k]
		old := t.inner(p.id)
		switch {
		case !split && left == old.child(p.rank):
			return // nothing has changed from here on
		case !split:
			n, id := t.copyOf(p.id)
			n.setChild(p.rank, left)
			left = id
		case old.room() >= entrySize+len(text):
			n, id := t.copyOf(p.id)
			n.setChild(p.rank, left)
			n.insert(p.rank, text, flags, right)
			left, split = id, false
		case p.rank == int(old.count):
			// At the end: what was there stays as it is, for keys that rise.
			if left != old.child(p.rank) {
				n, id := t.copyOf(p.id)
				n.setChild(p.rank, left)
				left = id
			} else {
				left = p.id
			}
			id := t.newNode()
			t.inner(id).take(old, right, 0, 0)
			right = id // sep goes up as it is
		default:
			left, right, text, flags = t.halve(old, p, left, text, flags, right)
			t.retire(t.pool.node(p.id))
		}
	}
	levels := uint64(len(path))
	if split {
		id := t.newNode()
		n := t.inner(id)
		*n = inner{first: left, heap: NodeSize}
		n.insert(0, text, flags, right)
		left, levels = id, levels+1
	}
	// Publish: whoever looks from here on goes the new way.
	t.root.Store(uint64(left)<<8 | levels)
}

// halve makes two nodes of one that is full, and puts an entry into one of them. It
// returns them, and the separator between them.
func (t *Tree) halve(old *inner, p step, left uint32, text []byte, flags uint16, right uint32) (uint32, uint32, []byte, uint16) {
	mid := int(old.count) / 2
	up := old.entries()[mid]
	a, b := t.newNode(), t.newNode()
	t.inner(a).take(old, old.first, 0, mid)
	t.inner(b).take(old, up.child, mid+1, int(old.count))
	n, rank := t.inner(a), p.rank
	if rank > mid {
		n, rank = t.inner(b), rank-mid-1
	}
	n.setChild(rank, left)
	n.insert(rank, text, flags, right)
	return a, b, old.raw(up.ref), up.flags()
}

// graftNodes is how many nodes a graft under so many levels may take.
func graftNodes(levels int) int { return 2*levels + 1 }

// copyOf makes a copy of a node to be changed, and gives the old one up.
func (t *Tree) copyOf(id uint32) (*inner, uint32) {
	next := t.newNode()
	n := t.inner(next)
	n.take(t.inner(id), t.inner(id).first, 0, int(t.inner(id).count))
	t.retire(t.pool.node(id))
	return n, next
}

// prune makes the children before and behind the separator number sep of the last
// node of path one, which is the first of them. The caller holds the lock and has
// made sure of memory, see pruneNodes. A node that holds little becomes one with a
// neighbour under the same parent.
func (t *Tree) prune(path []step, sep int) {
	k := len(path) - 1
	old := t.inner(path[k].id)
	if e := old.entries()[sep]; e.flags()&long != 0 {
		t.retire(t.kept(unsafe.Pointer(old), e.ref).block())
	}
	left := old.child(sep)
	for ; ; k-- {
		old := t.inner(path[k].id)
		id := t.newNode()
		n := t.inner(id)
		n.take(old, old.first, 0, sep)
		n.append(old, sep+1, int(old.count))
		n.setChild(sep, left)
		t.retire(t.pool.node(path[k].id))
		if left = id; k == 0 {
			break
		}
		over := t.inner(path[k-1].id)
		if sep = path[k-1].rank; sep == int(over.count) {
			sep--
		}
		if sep < 0 || n.used() >= mergeBelow || !t.join(over, sep, path[k-1].rank, id) {
			left = t.rewire(path[:k], id)
			break
		}
		// The two are one now: n has become it.
	}
	levels := uint64(len(path))
	for levels > 0 && t.inner(left).count == 0 {
		// A root with one child is none.
		first := t.inner(left).first
		t.retire(t.pool.node(left))
		left, levels = first, levels-1
	}
	t.root.Store(uint64(left)<<8 | levels)
}

// join makes the new node id, which takes the place of child number rank of over, and
// its neighbour at the separator sep one, if they fit into one.
func (t *Tree) join(over *inner, sep, rank int, id uint32) bool {
	n, e := t.inner(id), over.entries()[sep]
	otherID := over.child(sep)
	if rank == sep {
		otherID = over.child(sep + 1)
	}
	other := t.inner(otherID)
	if n.used()+other.used()+entrySize+e.length() > NodeSize-innerHead {
		return false
	}
	a, b := n, other
	if rank != sep {
		a, b = other, n
	}
	both := (*inner)(unsafe.Pointer(unsafe.SliceData(t.scratch)))
	both.take(a, a.first, 0, int(a.count))
	both.insert(int(both.count), over.raw(e.ref), e.flags(), b.first)
	both.append(b, 0, int(b.count))
	copy(unsafe.Slice((*byte)(unsafe.Pointer(n)), NodeSize), t.scratch)
	t.retire(t.pool.node(otherID))
	return true
}

// rewire copies the nodes of path, with id in place of what they lead to, and
// returns the first.
func (t *Tree) rewire(path []step, id uint32) uint32 {
	for k := len(path) - 1; k >= 0; k-- {
		n, next := t.copyOf(path[k].id)
		n.setChild(path[k].rank, id)
		id = next
	}
	return id
}

// pruneNodes is how many nodes a prune under so many levels may take.
func pruneNodes(levels int) int { return levels }

// reserve is how many nodes are left for a prune, so that a full tree can give
// memory back.
func (t *Tree) reserve() int { return pruneNodes(int(t.root.Load()&0xff) + 1) }
