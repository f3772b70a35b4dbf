package ioring_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"rskv/ioring"
	"rskv/ioring/iotest/seeds"
)

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// Memory that is released must read as zeros up to the last byte, including the
// parts of pages at both ends, and its neighbours must keep their content.
func TestMemory_Release_Zeroes(t *testing.T) {
	m, err := ioring.AllocMemory(3 << 20)
	require.NoError(t, err)
	require.EqualValues(t, 3<<20, m.Size())
	require.Zero(t, uintptr(m.Pointer())%4096)
	b := m.Bytes()
	for _, v := range [][2]int64{{0, 3 << 20}, {1, 100}, {4095, 2}, {100, 1 << 20}, {8192, 4096}, {5000, 0}} {
		for i := range b {
			b[i] = 0xa5
		}
		require.NoError(t, m.Release(v[0], v[1]))
		for i, x := range b {
			want := byte(0xa5)
			if int64(i) >= v[0] && int64(i) < v[0]+v[1] {
				want = 0
			}
			if x != want {
				t.Fatalf("release %v: byte %d is %#x", v, i, x)
			}
		}
	}
	require.Panics(t, func() { _ = m.Release(1, 3<<20) })
	require.NoError(t, m.Free())
	require.NoError(t, m.Free())
	_, err = ioring.AllocMemory(0)
	require.Error(t, err)
}

// The budget must be usable up to its last block, and not by one block more.
func TestBuffers_Get_SpendsWholeBudget(t *testing.T) {
	b, err := ioring.NewBuffers(1<<20 + 5*4096 + 17)
	require.NoError(t, err)
	require.EqualValues(t, 1<<20+5*4096, b.Budget())
	seen := map[uintptr]bool{}
	var all [][]byte
	for {
		buf := b.Get(100)
		if buf == nil {
			break
		}
		require.Len(t, buf, 100)
		require.Equal(t, 4096, cap(buf))
		require.Zero(t, address(buf)%4096)
		require.False(t, seen[address(buf)], "handed out twice")
		seen[address(buf)] = true
		all = append(all, buf)
	}
	require.Len(t, all, 256+5)
	require.Equal(t, b.Budget(), b.InUse())
	for _, buf := range all {
		b.Put(buf[:0])
	}
	require.Zero(t, b.InUse())
	require.NotNil(t, b.Get(1<<20), "a long run after everything came back")
	require.Nil(t, b.Get(1<<20))
	require.Nil(t, b.Get(2<<20), "more than the budget")
}

// A class must hold what was asked and not waste more than a third of itself.
func TestBuffers_Get_Classes(t *testing.T) {
	b, err := ioring.NewBuffers(64 << 20)
	require.NoError(t, err)
	for n, class := range map[int]int{1: 4096, 4096: 4096, 4097: 8192, 65536: 65536, 65537: 131072, 150000: 196608,
		196609: 262144, 262145: 524288, 16 << 20: 16 << 20, 16<<20 + 4096: 16<<20 + 262144} {
		buf := b.Get(n)
		require.Equal(t, n, len(buf))
		require.Equal(t, class, cap(buf), "class of %d", n)
		require.EqualValues(t, class, b.InUse())
		b.Put(buf)
	}
	require.Panics(t, func() { b.Get(0) })
}

// A buffer put back twice, or never taken, would later belong to two readers.
func TestBuffers_Put_RefusesForeign(t *testing.T) {
	b, err := ioring.NewBuffers(1 << 20)
	require.NoError(t, err)
	buf := b.Get(8192)
	require.Panics(t, func() { b.Put(buf[4096:]) })
	require.Panics(t, func() { b.Put(buf[1:]) })
	require.Panics(t, func() { b.Put(make([]byte, 4096)) })
	require.Panics(t, func() { b.Put(nil) })
	b.Put(buf)
	require.Panics(t, func() { b.Put(buf) })
	_, err = ioring.NewBuffers(4096)
	require.Error(t, err)
}

// Two goroutines must never own the same byte: each stamps what it holds.
func TestBuffers_Concurrent(t *testing.T) {
	seed := seeds.New(t)
	b, err := ioring.NewBuffers(4 << 20)
	require.NoError(t, err)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(g)))
			var held [][]byte
			for range 5000 {
				if len(held) > 0 && rng.IntN(2) == 0 {
					buf := held[len(held)-1]
					held = held[:len(held)-1]
					for i := 0; i < len(buf); i += 4096 {
						if buf[i] != byte(g+1) {
							t.Errorf("goroutine %d found the stamp of %d", g, buf[i])
							return
						}
					}
					b.Put(buf)
					continue
				}
				buf := b.Get(1 + rng.IntN(4096<<rng.IntN(9)))
				for i := 0; i < len(buf); i += 4096 {
					buf[i] = byte(g + 1)
				}
				if buf != nil {
					held = append(held, buf)
				}
			}
			for _, buf := range held {
				b.Put(buf)
			}
		})
	}
	wg.Wait()
	require.Zero(t, b.InUse())
}

func BenchmarkBuffers_GetPut(b *testing.B) {
	pool, err := ioring.NewBuffers(16 << 20)
	require.NoError(b, err)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			pool.Put(pool.Get(4096))
		}
	})
}
