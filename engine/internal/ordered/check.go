package ordered

import (
	"bytes"
	"fmt"
	"unsafe"
)

// Check looks at the whole tree, which nobody uses at the moment: that keys rise,
// stand between their leaf's bounds and can be found, that the inner nodes lead to
// every leaf once, and that the counters agree.
func (t *Tree) Check() error {
	c := checker{t: t}
	root := t.root.Load()
	if root == 0 {
		return nil
	}
	if err := c.node(uint32(root>>8), int(root&0xff), nil, nil); err != nil {
		return err
	}
	if c.next != 0 {
		return fmt.Errorf("ordered: the last leaf is followed by leaf %d", c.next)
	}
	if c.keys != t.keys.Load() || c.bytes != t.bytes.Load() || c.leaves != t.leaves.Load() {
		return fmt.Errorf("ordered: %d keys of %d bytes in %d leaves, counted are %d of %d in %d",
			c.keys, c.bytes, c.leaves, t.keys.Load(), t.bytes.Load(), t.leaves.Load())
	}
	return nil
}

type checker struct {
	t                   *Tree
	next                uint32 // what the leaf before says comes next
	keys, bytes, leaves int64
	last                []byte
}

// node checks what is under a node whose keys lie between low and high; nil: there is
// no such bound.
func (c *checker) node(id uint32, levels int, low, high []byte) error {
	if levels == 0 {
		return c.leaf(id, low, high)
	}
	n := c.t.inner(id)
	from := low
	for i := range int(n.count) + 1 {
		until := high
		if i < int(n.count) {
			until = c.t.text(unsafe.Pointer(n), n.entries()[i].ref)
			if from != nil && bytes.Compare(from, until) >= 0 {
				return fmt.Errorf("ordered: separator %q of node %d behind %q", until, id, from)
			}
		}
		if err := c.node(n.child(i), levels-1, from, until); err != nil {
			return err
		}
		from = until
	}
	return nil
}

func (c *checker) leaf(id uint32, low, high []byte) error {
	t, l := c.t, c.t.leaf(id)
	text := func(r ref) []byte { return t.text(unsafe.Pointer(l), r) }
	switch {
	case l.word != 0 || l.gone:
		return fmt.Errorf("ordered: leaf %d is latched (%d) or gone (%t)", id, l.word, l.gone)
	case c.leaves > 0 && c.next != id:
		return fmt.Errorf("ordered: leaf %d follows, the one before says %d", id, c.next)
	case !bytes.Equal(text(l.low), low):
		return fmt.Errorf("ordered: leaf %d begins at %q, its parent says %q", id, text(l.low), low)
	case l.open != (high == nil) || !l.open && !bytes.Equal(text(l.high), high):
		return fmt.Errorf("ordered: leaf %d ends at %q, its parent says %q", id, text(l.high), high)
	case l.room() < 0 || int(l.holes) > NodeSize:
		return fmt.Errorf("ordered: leaf %d has room for %d bytes, %d in holes", id, l.room(), l.holes)
	}
	var k Keys
	for i := range l.slots() {
		k.Reset()
		t.appendKey(&k, l, i)
		key := k.At(0)
		switch {
		case c.keys > 0 && bytes.Compare(c.last, key) >= 0:
			return fmt.Errorf("ordered: key %q behind %q", key, c.last)
		case bytes.Compare(key, low) < 0 || high != nil && bytes.Compare(key, high) >= 0:
			return fmt.Errorf("ordered: key %q in a leaf from %q to %q", key, low, high)
		case t.descend(key) != id:
			return fmt.Errorf("ordered: key %q of leaf %d leads to leaf %d", key, id, t.descend(key))
		}
		if at, there := t.search(l, key); !there || at != i {
			return fmt.Errorf("ordered: key %q is number %d, and found at %d (%t)", key, i, at, there)
		}
		c.last = append(c.last[:0], key...)
		c.keys++
		c.bytes += int64(len(key))
	}
	c.leaves++
	c.next = l.next
	return nil
}
