package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// simModel knows what the store has been asked to do, and so what it may hold.
//
// Every client has keys of its own, whose states follow each other in the order
// of its writes; all clients share counters, and values to which pieces are
// appended. Calls and answers carry stamps, which rise: what was answered before
// something else was called came before it.
//
// After a crash the store must hold one moment, the cut:
//
//   - of a client with a ledger exactly the writes that its ledger counts,
//   - of one without a beginning of the writes of each key,
//   - all that was answered before a Sync was called that has succeeded, and
//   - all that was answered before anything was called that it holds.
type simModel struct {
	clients []*simClientModel
	// durable is a stamp: what was answered before is on stable storage.
	durable uint64
	// checkpoints are those that were answered, with the stamp of their call.
	checkpoints map[uint64]uint64
}

// simWrite is a write of a client.
type simWrite struct {
	number uint64 // of the ledger
	call   uint64
	answer uint64 // 0: none yet
	key    *simKey
	shared *simShared
	delta  int64 // of a shared counter
	failed bool  // it had no effect
}

// simState is a state of a key: the value, or absent.
type simState struct {
	write  *simWrite // that made it; nil: it was recovered
	absent bool
	value  []byte
}

func (s *simState) is(value []byte, found bool) bool {
	return found != s.absent && (!found || bytes.Equal(s.value, value))
}

func (s *simState) String() string {
	if s.absent {
		return "absent"
	}
	return fmt.Sprintf("%d bytes %.24q", len(s.value), s.value)
}

// simKey is a key of one client.
type simKey struct {
	name   []byte
	states []simState // from the last one known to be durable to the newest
	wrote  uint64     // counts values, so that no two are the same
}

func (k *simKey) now() *simState { return &k.states[len(k.states)-1] }

// simShared is a counter or an appended value of all clients. Only those with a
// ledger use them, so that what is there after a crash is known exactly.
type simShared struct {
	name    []byte
	appends bool
}

// simClientModel is what is known about a client.
type simClientModel struct {
	id      int
	ledger  LedgerID // zero: it has none
	ordered bool     // it has one
	number  uint64   // of the last write called
	keys    []*simKey
	shared  []*simWrite // writes of shared keys that may be in the store, in order
	open    []*simWrite // called, not answered
	all     []*simWrite // of this life, in order
}

const (
	simClientsMax = 4
	simOpsMax     = 256
	simSharedKeys = 3 // of each sort
	simHotKeys    = 8
)

func newSimModel(clients, cold int) *simModel {
	m := &simModel{checkpoints: map[uint64]uint64{}}
	for id := range clients {
		c := &simClientModel{id: id, ordered: id%3 != 2}
		for i := range simHotKeys + cold {
			name := fmt.Appendf(nil, "client %d key %d", id, i)
			if i%7 == 3 {
				name = append(name, bytes.Repeat([]byte{'+'}, i%60*10)...)
			}
			c.keys = append(c.keys, &simKey{name: name, states: []simState{{absent: true}}})
		}
		m.clients = append(m.clients, c)
	}
	return m
}

func simSharedKey(appends bool, i int) *simShared {
	if appends {
		return &simShared{name: fmt.Appendf(nil, "pieces %d", i), appends: true}
	}
	return &simShared{name: fmt.Appendf(nil, "counter %d", i)}
}

// piece is what an append of a shared value appends: who, and the number.
func (c *simClientModel) piece(number uint64) []byte {
	return binary.LittleEndian.AppendUint32([]byte{byte(c.id), 0, 0, 0}, uint32(number))
}

const simPieceBytes = 8

// call notes that a write is called.
func (c *simClientModel) call(w *simWrite) {
	c.number++
	w.number = c.number
	c.open = append(c.open, w)
	c.all = append(c.all, w)
	if w.shared != nil {
		c.shared = append(c.shared, w)
	}
}

// answered notes the answer to a write.
func (c *simClientModel) answered(w *simWrite, stamp uint64, failed bool) {
	w.answer, w.failed = stamp, failed
	c.open = slices.DeleteFunc(c.open, func(o *simWrite) bool { return o == w })
}

// bounds of what a shared key may hold: what was done before a stamp, and what
// has been asked for at all.
func (m *simModel) counterBounds(s *simShared, before uint64) (least, most int64) {
	for _, c := range m.clients {
		for _, w := range c.shared {
			if !bytes.Equal(w.shared.name, s.name) || w.failed {
				continue
			}
			most += w.delta
			if w.answer != 0 && w.answer < before {
				least += w.delta
			}
		}
	}
	return least, most
}

// checkPieces checks a shared value: of every client a beginning of its appends,
// in order, with all that were done before a stamp.
func (m *simModel) checkPieces(s *simShared, value []byte, before uint64) error {
	if len(value)%simPieceBytes != 0 {
		return fmt.Errorf("%s: %d bytes, not a number of pieces", s.name, len(value))
	}
	next := make([]int, len(m.clients)) // of each client's appends
	mine := make([][]*simWrite, len(m.clients))
	for i, c := range m.clients {
		for _, w := range c.shared {
			if bytes.Equal(w.shared.name, s.name) && !w.failed {
				mine[i] = append(mine[i], w)
			}
		}
	}
	for at := 0; at < len(value); at += simPieceBytes {
		id, number := int(value[at]), uint64(binary.LittleEndian.Uint32(value[at+4:]))
		if id >= len(mine) || next[id] == len(mine[id]) || mine[id][next[id]].number != number {
			return fmt.Errorf("%s: piece %d is write %d of client %d, which does not come next", s.name, at/simPieceBytes, number, id)
		}
		next[id]++
	}
	for i := range mine {
		if n := next[i]; n < len(mine[i]) && mine[i][n].answer != 0 && mine[i][n].answer < before {
			return fmt.Errorf("%s: write %d of client %d is missing", s.name, mine[i][n].number, i)
		}
	}
	return nil
}

// simContent is what a store holds after an Open.
type simContent struct {
	applied []uint64 // number of each client's ledger
	get     func(key []byte) (value []byte, found bool, err error)
	// skip says that an error of get is no failure: the disk is damaged.
	skip func(error) bool
	dead func() bool // the power is gone, and nothing more can be learned
	// lossy says that the last writes may be gone though they were durable.
	lossy bool
}

// recovered compares the store with the model, and cuts the model off where the
// store has been cut off.
func (m *simModel) recovered(s simContent) error {
	cut := uint64(0) // everything that was answered before is there
	if !s.lossy {
		cut = m.durable
	}
	for i, c := range m.clients {
		if !c.ordered {
			continue
		}
		if s.applied[i] > c.number {
			return fmt.Errorf("client %d: its ledger counts %d writes of %d", i, s.applied[i], c.number)
		}
		for _, w := range c.all {
			if w.number <= s.applied[i] {
				cut = max(cut, w.call)
			}
		}
	}
	// The keys of clients without a ledger say what they hold of them.
	found := map[*simKey]int{}
	for _, c := range m.clients {
		if c.ordered {
			continue
		}
		for _, k := range c.keys {
			value, there, err := s.get(k.name)
			if err != nil {
				if s.skip(err) {
					continue
				}
				return fmt.Errorf("%s: %w", k.name, err)
			}
			first := slices.IndexFunc(k.states, func(st simState) bool { return st.is(value, there) })
			if first < 0 {
				return fmt.Errorf("%s: %s, which it never was since %s", k.name, &simState{absent: !there, value: value}, &k.states[0])
			}
			last := first
			for j := first; j < len(k.states); j++ {
				if k.states[j].is(value, there) {
					last = j
				}
			}
			found[k] = last
			if w := k.states[first].write; w != nil {
				cut = max(cut, w.call)
			}
		}
	}
	for i, c := range m.clients {
		if err := c.recovered(i, s, cut, found); err != nil {
			return err
		}
	}
	if err := m.sharedRecovered(s); err != nil {
		return err
	}
	if !s.dead() {
		m.cutOff(s, found)
	}
	return nil
}

// recovered checks one client: everything answered before the cut is there, and
// of one with a ledger nothing else but what it counts.
func (c *simClientModel) recovered(i int, s simContent, cut uint64, found map[*simKey]int) error {
	if !c.ordered {
		for _, k := range c.keys {
			at, read := found[k]
			if !read {
				continue
			}
			for _, st := range k.states[at+1:] {
				if st.write.answer != 0 && st.write.answer < cut {
					return fmt.Errorf("%s: %s, but it was %s before the cut (write %d of client %d, called %d, answered %d, cut %d)",
						k.name, &k.states[at], &st, st.write.number, i, st.write.call, st.write.answer, cut)
				}
			}
		}
		return nil
	}
	for _, w := range c.all {
		if w.number > s.applied[i] && w.answer != 0 && w.answer < cut {
			return fmt.Errorf("client %d: its ledger counts %d writes, but write %d was answered (%d) before the cut (%d)",
				i, s.applied[i], w.number, w.answer, cut)
		}
	}
	for _, k := range c.keys {
		want := k.at(s.applied[i])
		value, there, err := s.get(k.name)
		if err != nil && s.skip(err) {
			continue
		}
		if err != nil || !want.is(value, there) {
			return fmt.Errorf("%s: %s, want %s, after write %d of client %d: %w", k.name,
				&simState{absent: !there, value: value}, want, s.applied[i], i, errors.Join(err))
		}
	}
	return nil
}

// at is the state of the key after a write.
func (k *simKey) at(number uint64) *simState {
	for i := len(k.states) - 1; i > 0; i-- {
		if k.states[i].write.number <= number {
			return &k.states[i]
		}
	}
	return &k.states[0]
}

func (m *simModel) sharedRecovered(s simContent) error {
	for _, appends := range []bool{false, true} {
		for i := range simSharedKeys {
			key := simSharedKey(appends, i)
			value, found, err := s.get(key.name)
			if err != nil {
				if s.skip(err) {
					continue
				}
				return fmt.Errorf("%s: %w", key.name, err)
			}
			pieces, sum, any := 0, int64(0), false
			for j, c := range m.clients {
				for _, w := range c.shared {
					if !w.failed && w.number <= s.applied[j] && bytes.Equal(w.shared.name, key.name) {
						pieces++
						sum += w.delta
						any = true
					}
				}
			}
			switch {
			case found != any:
				return fmt.Errorf("%s: there: %t, want %t", key.name, found, any)
			case !any:
			case !appends && int64(binary.LittleEndian.Uint64(value)) != sum:
				return fmt.Errorf("%s: %d, want %d", key.name, int64(binary.LittleEndian.Uint64(value)), sum)
			case appends && len(value) != pieces*simPieceBytes:
				return fmt.Errorf("%s: %d bytes, want %d pieces", key.name, len(value), pieces)
			case appends:
				if err := m.checkPieces(key, value, 0); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// cutOff forgets what the store does not hold.
func (m *simModel) cutOff(s simContent, found map[*simKey]int) {
	for i, c := range m.clients {
		// What could not be read may be anything it has been.
		c.keys = slices.DeleteFunc(c.keys, func(k *simKey) bool {
			_, read := found[k]
			return !read && !c.ordered
		})
		for _, k := range c.keys {
			state := k.states[found[k]]
			if c.ordered {
				state = *k.at(s.applied[i])
			}
			k.states = []simState{{absent: state.absent, value: state.value}}
		}
		if c.ordered {
			c.number = s.applied[i]
		}
		c.shared = slices.DeleteFunc(c.shared, func(w *simWrite) bool { return w.number > s.applied[i] || w.failed })
		for _, w := range c.shared {
			w.call, w.answer = 0, 1 // it is there
		}
		c.open, c.all = nil, nil
	}
	m.durable = 0
	m.checkpoints = map[uint64]uint64{}
}
