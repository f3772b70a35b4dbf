package iotest

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
	for m.mu.spares < segments && m.freeLocked() {
		m.mu.spares++
	}
	m.mu.short = m.mu.spares < segments
}

// Room implements ioring.Device.
func (m *Mem) Room() (reserved int, full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.spares, m.mu.short
}

func (m *Mem) freeLocked() bool {
	return m.mu.room == 0 || len(m.mu.segments)+m.mu.spares < m.mu.room
}

// makeRoom reports whether a segment is there or can be made, from the reserve if
// there is one.
func (m *Mem) makeRoom(index int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.mu.segments[index] != nil:
	case m.mu.spares > 0:
		m.mu.spares--
	default:
		return m.freeLocked()
	}
	return true
}
