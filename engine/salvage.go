package engine

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"rskv/engine/internal/record"
)

// Salvage writes what verifies of a damaged store into a new one, in the order
// of the log up to the last commit, so that of each key the newest version that
// has survived wins, and a delete that has survived deletes.
//
//	log of the damaged store   put a=1 | put b=1 |##########| del b | put c=2
//	new store                  a=1, c=2
//
// What cannot be known, and is therefore not claimed: which keys the damaged
// stretches held. A key whose newest version was there comes back with an older
// one, or is missing; a key whose delete was there comes back. Only where a
// large value has lost a chunk is the key known, and listed.
//
// The end of the log is what Verify takes for it: a group of writes whose commit
// record is there and that is whole counts, and so does all that a later commit
// record says was durable; a torn group at the very end was promised to nobody
// and is left out.
//
// The new store has an identity of its own: sessions of clients begin anew, and
// answer that they are not known. Without a manifest, or its copy, nothing can
// be salvaged: the seed of every checksum is in it.

// ErrNotEmpty: there is something where a new store is to be made.
var ErrNotEmpty = errors.New("not empty")

// lostMax bounds how many lost keys are listed.
const lostMax = 1 << 16

// LostKey is a key whose newest value has lost a chunk. The store has the version
// before, if there was one.
type LostKey struct {
	Key  []byte
	Addr int64 // byte address of the record
}

// SalvageResult is what came of a Salvage.
type SalvageResult struct {
	Found VerifyResult // in the damaged store, but without LostChunks and LostValues
	Keys  int64        // in the new store
	Lost  []LostKey    // at most 65536, by address
	More  int64        // values that have lost a chunk besides, old ones among them
}

// Salvage reads the store that from names, which it does not change, and makes
// one with options to, whose directory must be empty or missing (ErrNotEmpty).
// Page and segment size are those of the old store unless to has its own. report
// is told what is lost of the log, as by Verify; it may be nil. After an error
// the new store is incomplete.
func Salvage(from VerifyOptions, to Options, report func(Damage)) (SalvageResult, error) {
	v, err := openVerifier(from, report)
	if err != nil {
		return SalvageResult{}, fmt.Errorf("salvage: %w", errors.Join(err, closeUnused(&to)))
	}
	g := &salvager{verifier: v, lost: make(map[string]record.Addr)}
	err = errors.Join(g.run(to), v.close())
	if err != nil {
		return SalvageResult{}, fmt.Errorf("salvage: %w", err)
	}
	return g.result(), nil
}

// closeUnused closes the device of options that come to nothing.
func closeUnused(opt *Options) error {
	if opt.Device == nil {
		return nil
	}
	return opt.Device.Close()
}

// checkEmpty refuses a place for a new store that is not empty.
func checkEmpty(opt *Options) error {
	if opt.Device == nil {
		entries, err := os.ReadDir(opt.Dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if len(entries) > 0 {
			return fmt.Errorf("%s: %w: there is %s", opt.Dir, ErrNotEmpty, entries[0].Name())
		}
		return nil
	}
	names, err := opt.Device.ListMeta()
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return fmt.Errorf("%w: there is %s", ErrNotEmpty, names[0])
	}
	if begin, end := opt.Device.Extent(); begin != end {
		return fmt.Errorf("%w: there are log segments", ErrNotEmpty)
	}
	return nil
}

type salvager struct {
	*verifier
	to    *Session
	keys  int64
	lost  map[string]record.Addr // keys whose newest value has lost a chunk
	more  int64
	value []byte
}

func (g *salvager) run(to Options) error {
	err := checkEmpty(&to)
	if err == nil {
		err = g.prepare()
	}
	if err == nil && g.m == nil {
		err = &CorruptError{Where: "store", Addr: -1, Err: errors.New(g.res.Why)}
	}
	if err != nil {
		return errors.Join(err, closeUnused(&to))
	}
	def(&to.PageSize, int(g.walk.pageSize))
	def(&to.SegmentSize, int64(1)<<g.m.SegmentBits)
	s, err := Open(to)
	if err != nil {
		return err
	}
	g.to = s.NewSession()
	for _, span := range g.m.Spans {
		if err = g.verifier.walk.walk(span, g.m.Begin, span.End, g.visit, g.damaged); err != nil {
			break
		}
	}
	g.res.Opens = g.res.Why == ""
	s.clock.raise(g.clock)
	g.to.Close()
	g.keys = s.Len()
	return errors.Join(err, s.Close())
}

// visit takes a record over.
func (g *salvager) visit(r *logRecord) error {
	if err := g.verifier.visit(r); err != nil || !r.isUser() {
		return err
	}
	// What has expired is put all the same: it hides what is older.
	op := Op{Kind: OpPut, Key: r.key(), Value: r.value()}
	op.setExpiry(r.expiry())
	switch record.KindOf(r.w1) {
	case record.Tombstone:
		op = Op{Kind: OpDelete, Key: r.key(), Blind: true}
	case record.Big:
		value, err := g.assemble(r)
		if err != nil {
			g.lose(r)
			return nil
		}
		op.Value = value
	}
	delete(g.lost, string(op.Key))
	ops := [1]Op{op}
	g.to.Do(ops[:])
	if err := ops[0].Err; err != nil {
		return fmt.Errorf("record at %v: %w", r.addr, err)
	}
	return nil
}

// assemble reads a large value, valid until the next call.
func (g *salvager) assemble(r *logRecord) ([]byte, error) {
	total, chunks, err := chunkList(r.value())
	if err != nil {
		return nil, err
	}
	g.value = g.value[:0]
	for i, a := range chunks {
		part, err := g.walk.chunk(a, min(chunkBytes, total-i*chunkBytes), r.key())
		if err != nil {
			return nil, err
		}
		g.value = append(g.value, part...)
	}
	return g.value, nil
}

// lose notes a key whose newest value so far is lost.
func (g *salvager) lose(r *logRecord) {
	if _, known := g.lost[string(r.key())]; !known && len(g.lost) >= lostMax {
		g.more++
		return
	}
	g.lost[string(r.key())] = r.addr
}

func (g *salvager) result() SalvageResult {
	res := SalvageResult{Found: g.res, Keys: g.keys, More: g.more}
	for _, key := range slices.SortedFunc(maps.Keys(g.lost), func(a, b string) int { return int(int64(g.lost[a]) - int64(g.lost[b])) }) {
		res.Lost = append(res.Lost, LostKey{[]byte(key), g.lost[key].Bytes()})
	}
	return res
}
