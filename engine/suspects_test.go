package engine

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
)

// TestSuspect_Pack: a place comes back as another one, or one that does not fit is
// taken.
func TestSuspect_Pack(t *testing.T) {
	const begin = record.Addr(1<<40 + 64)
	for _, from := range []record.Addr{0, 1, 12345, 1<<suspectFrom - 1} {
		for _, at := range []record.Addr{from, from + 1, 1<<suspectFrom + 7, 1<<suspectAt - 1} {
			p, ok := newSuspect(begin, begin+from, begin+at, []byte("key"))
			require.True(t, ok)
			require.Equal(t, [2]record.Addr{begin + from, begin + at}, [2]record.Addr{p.from(begin), p.at(begin)})
			next := p.onward(begin, begin+from)
			require.Equal(t, [2]record.Addr{begin + from, begin + from}, [2]record.Addr{next.from(begin), next.at(begin)})
			require.Equal(t, p.sum, next.sum)
		}
	}
	_, ok := newSuspect(begin, begin, begin+1<<suspectAt, []byte("key"))
	require.False(t, ok)
	_, ok = newSuspect(begin, begin+1<<suspectFrom, begin+1<<suspectFrom, []byte("key"))
	require.False(t, ok)
}

// TestSuspects_Sort: the order is wrong, or some are lost, for any number and spread.
func TestSuspects_Sort(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 1))
	for _, n := range []int{0, 1, 2, 63, 64, 65, 1000, 100_000} {
		for _, width := range []int{1, 7, 8, 9, 30, 64} {
			list := make([]suspect, n)
			for i := range list {
				list[i] = suspect{rng.Uint64() >> (64 - width), uint64(i)}
			}
			want := slices.Clone(list)
			sortSuspects(list, width)
			require.True(t, slices.IsSortedFunc(list, func(a, b suspect) int {
				return strings.Compare(fmt.Sprintf("%020d", a.place), fmt.Sprintf("%020d", b.place))
			}), "%d of %d bits", n, width)
			bySum := func(a, b suspect) int { return int(a.sum) - int(b.sum) }
			slices.SortFunc(list, bySum)
			require.Equal(t, want, list)
		}
	}
}

// TestSuspects_Full: a list hands out a place twice, or one that it does not have.
func TestSuspects_Full(t *testing.T) {
	memory := make([]uint64, 2*10)
	var l suspects
	l.in(unsafe.Slice((*byte)(unsafe.Pointer(&memory[0])), len(memory)*8))
	for i := range 10 {
		require.EqualValues(t, 10-i, l.left())
		require.True(t, l.add(suspect{place: uint64(i)}))
	}
	for range 3 {
		require.False(t, l.add(suspect{}))
	}
	require.Zero(t, l.left())
	list := l.take()
	require.Len(t, list, 10)
	require.EqualValues(t, 9, list[9].place)
	require.EqualValues(t, 10, l.left())
}

// TestResolver_Ring: two extents share memory, an extent does not hold its records or
// crosses a segment, or some suspects are never handed out.
func TestResolver_Ring(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 1))
	dev := newMem()
	s := openOn(t, dev, nil)
	n := s.NewSession()
	evict(t, s, n)
	evict(t, s, n)
	syncStore(t, s)
	head := s.log.Head()
	for round := range 20 {
		var list []suspect
		gap := uint64(1) << rng.IntN(18)
		for a := uint64(4); ; a += 1 + rng.Uint64N(gap) {
			p, ok := newSuspect(0, 0, record.Addr(a), nil)
			require.True(t, ok)
			if p.at(0) >= head {
				break
			}
			if list = append(list, p); len(list) == 20_000 {
				break
			}
		}
		memory := make([]byte, ringMin+4096)
		skip := int(-uintptr(unsafe.Pointer(&memory[0])) & 4095)
		longest := rng.IntN(2 * (inlineMax + MaxKey))
		woken := make(chan struct{}, 1)
		r := newResolver(s, 0, list, memory[skip:][:ringMin], longest, func() {
			select {
			case woken <- struct{}{}:
			default:
			}
		})
		var out []*extent
		for seen := 0; seen < len(list); {
			e := r.take()
			if e == nil || len(out) > 0 && rng.IntN(3) == 0 {
				if len(out) == 0 {
					<-woken
					continue
				}
				i := rng.IntN(len(out))
				r.release(out[i])
				out = slices.Delete(out, i, i+1)
				if e == nil {
					continue
				}
			}
			require.NoError(t, e.Err)
			require.Equal(t, e.Off/dev.SegmentSize(), (e.Off+int64(len(e.Buf))-1)/dev.SegmentSize())
			for _, p := range e.list {
				a := p.at(0).Bytes()
				require.GreaterOrEqual(t, a, e.Off)
				until := min(a+int64(max(longest-blockBytes, keyRoom)), s.pageEnd(p.at(0)))
				require.LessOrEqual(t, until, e.Off+int64(len(e.Buf)), "round %d", round)
			}
			seen += len(e.list)
			for _, other := range out {
				a, b := uintptr(unsafe.Pointer(&e.Buf[0])), uintptr(unsafe.Pointer(&other.Buf[0]))
				require.True(t, a+uintptr(len(e.Buf)) <= b || b+uintptr(len(other.Buf)) <= a, "round %d", round)
			}
			out = append(out, e)
		}
		require.True(t, r.handedOut())
		for _, e := range out {
			r.release(e)
		}
		require.Len(t, memory[skip:][:ringMin], r.free)
		r.close()
	}
	n.Close()
	require.NoError(t, s.Close())
}

// TestCompact_SharedChains: where many keys share a chain and the records that decide
// are long, a pass loses some, brings some back, or keeps what is dead.
func TestCompact_SharedChains(t *testing.T) {
	rng := rand.New(rand.NewPCG(newSeed(t), 1))
	s := openOn(t, newMem(), func(o *Options) { o.Memory, o.IndexBits = 33<<20, 6 })
	s.growth.task.Stop() // nobody else may look at the index meanwhile
	s.index.Reset(6, 0)  // 2^15 chains
	n := s.NewSession()
	const keys = 20_000
	key := func(i int) []byte {
		if i%200 == 7 {
			return append(key64(i), bytes.Repeat([]byte{'k'}, 1+i*13%(MaxKey-9))...)
		}
		return key64(i)
	}
	size := func(version uint64) int {
		if version%500 == 3 {
			return int(version * 7919 % inlineMax)
		}
		return int(version % 40)
	}
	versions := make([]uint64, keys)
	number := uint64(0)
	churn := func(writes int) {
		for range writes {
			i := rng.IntN(keys)
			if number++; number%5 == 0 {
				versions[i] = 0
				op := Op{Kind: OpDelete, Key: key(i), Blind: true}
				require.NoError(t, n.one(&op))
				continue
			}
			versions[i] = number
			require.NoError(t, n.Put(key(i), valueOf(uint64(i), number, size(number))))
		}
	}
	for round := range 3 {
		churn(2 * keys)
		evict(t, s, n)
		syncStore(t, s)
		before := s.log.Begin()
		res := compact(t, s, (before+s.log.Tail()).Bytes()/2)
		require.Greater(t, s.log.Begin(), before)
		require.Less(t, res.Copied, res.Scanned)
		for from := 0; from < keys; from += 64 {
			ops := make([]Op, min(64, keys-from))
			for i := range ops {
				ops[i] = Op{Kind: OpGet, Key: key(from + i)}
			}
			n.Do(ops)
			for i, op := range ops {
				version := versions[from+i]
				require.NoError(t, op.Err)
				require.Equal(t, version > 0, op.Found, "round %d, key %d", round, from+i)
				if op.Found {
					require.NoError(t, valueIs(op.Value, uint64(from+i), version, size(version)))
				}
			}
		}
	}
	n.Close()
	require.NoError(t, s.Close())
}
