package ordered

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/epoch"
	"rskv/ioring/iotest/seeds"
)

var newSeed = seeds.New

// user is a goroutine's way into a tree.
type user struct {
	t    testing.TB
	tree *Tree
	slot *epoch.Slot
	keys Keys
}

func newTree(t testing.TB, most int64) (*Tree, *epoch.Domain) {
	domain := epoch.New()
	tree, err := New(domain, most)
	require.NoError(t, err)
	tree.Allow(most)
	t.Cleanup(func() { require.NoError(t, tree.Free()) })
	return tree, domain
}

func newUser(t testing.TB, tree *Tree, domain *epoch.Domain) *user {
	return &user{t: t, tree: tree, slot: domain.Register()}
}

// do runs f in a section until it is not Again.
func (u *user) do(f func() Status) Status {
	for {
		u.slot.Enter()
		st := f()
		u.slot.Exit()
		if st != Again {
			return st
		}
		runtime.Gosched()
	}
}

func (u *user) insert(key []byte) (added bool) {
	u.t.Helper()
	st := u.do(func() (st Status) { added, st = u.tree.Insert(key); return st })
	if st != Done {
		u.t.Errorf("insert of %q: %d", key, st)
	}
	return added
}

func (u *user) doubt(key []byte) { u.do(func() Status { u.tree.Doubt(key); return Done }) }

// sweep settles what is in doubt by what live says, as the remover does. It returns
// how many it has looked at.
func (u *user) sweep(live func(key []byte) bool) (n int) {
	u.keys.Reset()
	u.do(func() Status { n = u.tree.Suspects(&u.keys, 50, 1<<20); return Done })
	if n == 0 {
		return 0
	}
	u.drain()
	for i := range n {
		key := u.keys.At(i)
		is := live(key)
		u.do(func() Status { return u.tree.Settle(key, is) })
	}
	for more := true; more; {
		u.do(func() Status { more = u.tree.Tidy(); return Done })
	}
	return n
}

// drain waits until every section of before has ended.
func (u *user) drain() {
	done := make(chan struct{})
	u.tree.pool.epoch.Bump(func() { close(done) })
	<-done
}

// all returns the keys from one on and before another; nil: to the end.
func (u *user) all(from, until []byte, page int) (keys [][]byte) {
	next := append([]byte{}, from...)
	for next != nil {
		u.keys.Reset()
		at := next
		u.do(func() (st Status) {
			u.keys.Reset()
			next, st = u.tree.Page(at, page, &u.keys, nil)
			return st
		})
		for i := range u.keys.Len() {
			if key := u.keys.At(i); until == nil || bytes.Compare(key, until) < 0 {
				keys = append(keys, bytes.Clone(key))
			} else {
				return keys
			}
		}
	}
	return keys
}

// before returns the keys below one, falling; nil: all.
func (u *user) before(key []byte, page int) (keys [][]byte) {
	for next, first := key, true; first || next != nil; first = false {
		at := next
		u.do(func() (st Status) {
			u.keys.Reset()
			next, st = u.tree.PageBefore(at, page, &u.keys, nil)
			return st
		})
		for i := range u.keys.Len() {
			keys = append(keys, bytes.Clone(u.keys.At(i)))
		}
	}
	return keys
}

// shapes are kinds of keys.
var shapes = map[string]func(rng *rand.Rand) []byte{
	"numbers": func(rng *rand.Rand) []byte { return binary.BigEndian.AppendUint64(nil, rng.Uint64()) },
	"dense":   func(rng *rand.Rand) []byte { return binary.BigEndian.AppendUint32(nil, rng.Uint32N(20_000)) },
	"paths": func(rng *rand.Rand) []byte {
		return fmt.Appendf(nil, "user/%d/orders/%08d/lines/%d", rng.IntN(20), rng.IntN(500), rng.IntN(50))
	},
	"nested": func(rng *rand.Rand) []byte { return bytes.Repeat([]byte("a"), 1+rng.IntN(2000)) },
	"long": func(rng *rand.Rand) []byte {
		return append(bytes.Repeat([]byte("p"), 250+rng.IntN(20)), fmt.Sprint(rng.IntN(5000))...)
	},
	"huge": func(rng *rand.Rand) []byte {
		key := bytes.Repeat([]byte("x"), 1+rng.IntN(65_535))
		key[rng.IntN(len(key))] = byte(rng.IntN(256))
		return key
	},
	"bytes": func(rng *rand.Rand) []byte {
		key := make([]byte, 1+rng.IntN(4))
		for i := range key {
			key[i] = []byte{0, 0xff, 'a'}[rng.IntN(3)]
		}
		return key
	},
}

// TestTree_Model: keys that are lost, doubled, out of order, or not removed, in the
// midst of splits and merges.
func TestTree_Model(t *testing.T) {
	seed := newSeed(t)
	for name, key := range shapes {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, uint64(len(name))))
			tree, domain := newTree(t, 256<<20)
			u := newUser(t, tree, domain)
			have, doubted := map[string]bool{}, map[string]bool{}
			steps := 30_000
			if name == "huge" {
				steps = 1500
			}
			if testing.Short() {
				steps /= 4
			}
			check := func() {
				t.Helper()
				require.NoError(t, tree.Check())
				want := make([]string, 0, len(have))
				for k := range have {
					want = append(want, k)
				}
				slices.Sort(want)
				got := u.all(nil, nil, 1+rng.IntN(100))
				require.Len(t, got, len(want))
				for i := range want {
					require.Equal(t, want[i], string(got[i]))
				}
				down := u.before(nil, 1+rng.IntN(100))
				slices.Reverse(down)
				require.Equal(t, got, down)
				for range 20 {
					a, b := key(rng), key(rng)
					i, _ := slices.BinarySearch(want, string(a))
					j, _ := slices.BinarySearch(want, string(b))
					require.Len(t, u.all(a, b, 7), max(j-i, 0), "from %q to %q", a, b)
					require.Len(t, u.before(b, 7), j, "below %q", b)
				}
			}
			for phase := range 4 {
				share := []int{10, 5, 2, 8}[phase] // of ten steps, those that add
				for range steps / 4 {
					k := key(rng)
					if rng.IntN(10) < share {
						continue
					}
					if share < 10 && len(have) > 0 && rng.IntN(2) == 0 { // one that is there
						for one := range have {
							k = []byte(one)
							break
						}
					}
					if have[string(k)] {
						doubted[string(k)] = true
					}
					delete(have, string(k))
					u.doubt(k)
				}
				for u.sweep(func(key []byte) bool { return have[string(key)] }) > 0 {
				}
				clear(doubted)
				check()
			}
			for k := range have {
				u.doubt([]byte(k))
			}
			clear(have)
			for u.sweep(func([]byte) bool { return false }) > 0 {
			}
			check()
			u.drain()
			st := tree.Stats()
			require.Zero(t, st.Keys)
			require.LessOrEqual(t, st.Leaves, int64(1), "leaves that nothing is in")
		})
	}
}

// TestTree_Doubt: a key that somebody has added while it was dying is removed, or one
// that nobody has stays.
func TestTree_Doubt(t *testing.T) {
	tree, domain := newTree(t, 1<<20)
	u := newUser(t, tree, domain)
	take := func() {
		u.keys.Reset()
		u.do(func() Status { tree.Suspects(&u.keys, 10, 1<<20); return Done })
	}
	settle := func(key string, live bool) {
		require.Equal(t, Done, u.do(func() Status { return tree.Settle([]byte(key), live) }))
	}
	has := func(key string) (there bool) {
		u.do(func() (st Status) { there, st = tree.Has([]byte(key)); return st })
		return there
	}
	for _, k := range []string{"a", "b", "c", "d"} {
		u.insert([]byte(k))
	}
	for _, k := range []string{"a", "b", "c"} {
		u.doubt([]byte(k))
	}
	u.insert([]byte("a")) // takes the mark off
	take()
	require.Equal(t, 2, u.keys.Len())
	u.insert([]byte("b")) // while it is dying
	settle("b", false)
	settle("c", false)
	settle("d", false) // nobody has doubted it
	require.True(t, has("a") && has("b") && has("d"))
	require.False(t, has("c"))
	u.doubt([]byte("d"))
	take()
	u.doubt([]byte("d")) // again, while it is dying
	settle("d", true)
	require.True(t, has("d"))
	require.NoError(t, tree.Check())
}

// TestTree_Memory: a tree that may not take more memory forgets a key, or does not
// use what it is given then.
func TestTree_Memory(t *testing.T) {
	domain := epoch.New()
	tree, err := New(domain, 8<<20)
	require.NoError(t, err)
	defer func() { require.NoError(t, tree.Free()) }()
	tree.Allow(64 << 10)
	u := newUser(t, tree, domain)
	n := 0
	fill := func() {
		for ; ; n++ {
			key := binary.BigEndian.AppendUint64(nil, uint64(n)*0x9e3779b97f4a7c15)
			if u.do(func() (st Status) { _, st = tree.Insert(key); return st }) == NoMemory {
				break
			}
		}
	}
	fill()
	few := n
	require.Greater(t, few, 500)
	require.LessOrEqual(t, tree.Stats().Taken, int64(64<<10))
	require.True(t, tree.Wants(8*NodeSize))
	require.NoError(t, tree.Check())
	tree.Allow(1 << 20)
	fill()
	require.Greater(t, n, 5*few)
	require.Len(t, u.all(nil, nil, 100), n)
	require.NoError(t, tree.Check())
	tree.Allow(1 << 40)
	require.Equal(t, int64(8<<20), tree.Stats().Allowed)
}

// TestTree_Concurrent: beside writers who add and remove, a reader misses a key that
// was there all the time, sees keys out of order, or the tree is not whole after it.
func TestTree_Concurrent(t *testing.T) {
	seed := newSeed(t)
	for _, name := range []string{"numbers", "dense", "long"} {
		t.Run(name, func(t *testing.T) { concurrent(t, seed, name) })
	}
}

func concurrent(t *testing.T, seed uint64, name string) {
	tree, domain := newTree(t, 256<<20)
	const writers = 4
	var live sync.Map // what the store would say
	stable := map[string]bool{}
	u := newUser(t, tree, domain)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 2000 {
		k := shapes[name](rng)
		stable[string(k)] = true
		live.Store(string(k), true)
		u.insert(k)
	}
	var stop atomic.Bool
	var working, others sync.WaitGroup
	for w := range uint64(writers) {
		working.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 10+w))
			u := newUser(t, tree, domain)
			for range 8000 / (1 + 7*btoi(testing.Short())) {
				k := append(shapes[name](rng), byte(w)) // its own
				if rng.IntN(2) == 0 {
					// As a store does: added before it comes to life, in one section.
					u.do(func() Status {
						_, st := tree.Insert(k)
						if st == Done {
							live.Store(string(k), true)
						}
						return st
					})
				} else {
					u.do(func() Status {
						live.Delete(string(k))
						tree.Doubt(k)
						return Done
					})
				}
			}
		})
	}
	others.Go(func() { // the remover
		u := newUser(t, tree, domain)
		for !stop.Load() {
			if u.sweep(func(key []byte) bool { _, is := live.Load(string(key)); return is }) == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
	for reader := range uint64(2) {
		others.Go(func() {
			u := newUser(t, tree, domain)
			for !stop.Load() {
				keys := u.all(nil, nil, 200)
				if reader == 1 {
					keys = u.before(nil, 30)
					slices.Reverse(keys)
				}
				found := 0
				for i, k := range keys {
					if i > 0 && bytes.Compare(keys[i-1], k) >= 0 {
						t.Errorf("%q behind %q", k, keys[i-1])
						return
					}
					if stable[string(k)] {
						found++
					}
				}
				if found != len(stable) {
					t.Errorf("%d keys of %d that are always there", found, len(stable))
					return
				}
			}
		})
	}
	working.Wait()
	stop.Store(true)
	others.Wait()
	require.NoError(t, tree.Check())
	for _, k := range u.all(nil, nil, 1000) {
		if _, is := live.Load(string(k)); !is {
			u.doubt(k) // somebody was in the way when it was removed
		}
	}
	for u.sweep(func(key []byte) bool { _, is := live.Load(string(key)); return is }) > 0 {
	}
	require.NoError(t, tree.Check())
	want := 0
	live.Range(func(any, any) bool { want++; return true })
	require.Len(t, u.all(nil, nil, 1000), want)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestTree_RetiredIsUnreachable: a node that the published root still leads to is
// given back, and used for another while a reader looks at it.
func TestTree_RetiredIsUnreachable(t *testing.T) {
	seed := newSeed(t)
	rng := rand.New(rand.NewPCG(seed, 1))
	tree, _ := newTree(t, 64<<20)
	splits := 0
	for range 6000 {
		key := make([]byte, 200)
		for i := range key {
			key[i] = byte(rng.IntN(256))
		}
		if rng.IntN(2) == 0 {
			copy(key, bytes.Repeat([]byte{7}, 150)) // long separators make a high tree
		}
		before := map[uint32][]byte{}
		path, _ := tree.climb(key)
		for _, s := range path {
			before[s.id] = bytes.Clone(unsafe.Slice((*byte)(tree.pool.at(s.id)), NodeSize))
		}
		// The next that is retired goes to the epoch; nobody is in a section, so it
		// comes back at once.
		for len(tree.retired) < retireBatch-1 {
			tree.retire(tree.pool.node(tree.newNode()))
		}
		root := tree.root.Load()
		_, st := tree.Insert(key)
		require.Equal(t, Done, st)
		if tree.root.Load() == root {
			continue
		}
		splits++
		path, _ = tree.climb(key)
		for _, s := range path {
			if old, there := before[s.id]; there {
				require.True(t, bytes.Equal(old, unsafe.Slice((*byte)(tree.pool.at(s.id)), NodeSize)), "node %d was used again before the root was published", s.id)
			}
		}
	}
	require.Greater(t, splits, 100)
	require.NoError(t, tree.Check())
}
