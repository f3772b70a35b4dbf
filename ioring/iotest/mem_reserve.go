package iotest

import (
	"math/rand/v2"
	"slices"
)

// memKept is a discarded segment that is kept to be written over.
type memKept struct {
	content []byte // synced
	was     int64  // the number it had
}

// SetRoom changes how many segments there is room for, the reserve included; zero
// means any number. What is there stays.
func (m *Mem) SetRoom(segments int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.room = segments
}

// Reserve implements ioring.Device.
func (m *Mem) Reserve(segments int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.wanted = segments
	for m.sparesLocked() < segments && m.freeLocked() {
		m.mu.spares++
	}
	m.mu.short = m.sparesLocked() < segments
}

// Recycle implements ioring.Device.
func (m *Mem) Recycle(segments int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.recycle = segments
	for m.sparesLocked() > m.mu.wanted+segments {
		if m.mu.spares > 0 {
			m.mu.spares--
		} else {
			m.mu.kept = m.mu.kept[1:]
		}
	}
}

// Room implements ioring.Device.
func (m *Mem) Room() (reserved int, full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sparesLocked(), m.mu.short
}

func (m *Mem) sparesLocked() int { return m.mu.spares + len(m.mu.kept) }

func (m *Mem) freeLocked() bool {
	return m.mu.room == 0 || len(m.mu.segments)+m.sparesLocked() < m.mu.room
}

// makeRoom reports whether a segment is there or can be made, from the reserve if
// there is one.
func (m *Mem) makeRoom(index int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.segments[index] != nil || m.sparesLocked() > 0 || m.freeLocked()
}

// newSegmentLocked makes a segment, of a discarded one if there is one, else from
// the reserve.
func (m *Mem) newSegmentLocked() *memSegment {
	if n := len(m.mu.kept); n > 0 {
		k := m.mu.kept[n-1]
		m.mu.kept = m.mu.kept[:n-1]
		m.mu.counters.Recycled++
		// A crash may give it its old name back: then the content is the new one's.
		return &memSegment{live: slices.Clone(k.content), durable: k.content, was: k.was}
	}
	if m.mu.spares > 0 {
		m.mu.spares--
	}
	size := m.options.SegmentSize
	return &memSegment{live: make([]byte, size), durable: make([]byte, size), was: none}
}

// keepLocked keeps a segment that was discarded, if one more may be kept and all of
// it is synced.
func (m *Mem) keepLocked(index int64, s *memSegment) {
	written := func(w memWrite) bool { return w.off/m.options.SegmentSize == index && w.number >= s.made }
	if s.named && m.sparesLocked() < m.mu.wanted+m.mu.recycle && !slices.ContainsFunc(m.mu.unsynced, written) {
		m.mu.kept = append(m.mu.kept, memKept{content: s.durable, was: index})
	}
}

// ghostsLocked brings discarded segments back into an image under construction. One
// that has become another segment meanwhile comes back only if that is not there
// under its new name; back says which these are. The others that were kept stay so.
func (m *Mem) ghostsLocked(rng *rand.Rand, keep float64, image *Mem) (back map[int64]int64) {
	became := make(map[int64]int64)
	for index, s := range m.mu.segments {
		if s.was != none {
			became[s.was] = index
		}
	}
	back = make(map[int64]int64)
	for _, index := range sortedKeys(m.mu.ghosts) {
		now, changed := became[index]
		if changed && image.mu.segments[now] != nil || rng.Float64() >= keep {
			continue
		}
		image.place(index, m.mu.ghosts[index])
		if changed {
			back[now] = index
		}
	}
	for _, k := range m.mu.kept {
		if image.mu.segments[k.was] == nil {
			image.mu.kept = append(image.mu.kept, memKept{slices.Clone(k.content), k.was})
		}
	}
	return back
}
