package record

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest/seeds"
)

var newRand = seeds.Rand

// memory returns n bytes aligned to a Unit and filled with what a recycled page
// frame may hold.
func memory(n int) []byte {
	words := make([][2]uint64, (n+Unit-1)/Unit+1)
	b := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(words)*Unit)
	for i := range b {
		b[i] = 0xa5
	}
	return b[:n:n]
}

func pointer(b []byte) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(b)) }

var testSeed = NewSeed([16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, 7)

// image writes and seals a record into memory of its own.
func image(addr Addr, w0, w1 uint64, key, value []byte) []byte {
	b := memory(Size(w0, w1))
	Write(pointer(b), w0, w1, key, value)
	Seal(pointer(b), testSeed, addr)
	return b
}

// TestImage_Golden: the bytes of a record change, and stores written before can
// not be read any more.
func TestImage_Golden(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		w0, w1     uint64
		key, value string
		want       string
	}{
		{"value", Word0(0x123456, 3), Word1(Value, 5, 0), "key", "value", "563412000000030048ab8a28050000006b6579000000000076616c7565000000"},
		{"tombstone", Word0(0x123456, 3), Word1(Tombstone, 0, 0), "key", "", "563412000000030036eda10a000000026b657900000000000000000000000000"},
		{"invalid and sealed", Word0(9, 8), Word1(Value, 8, Invalid|Sealed), "12345678", "abcdefgh", "09000000000008001a71980c0800003031323334353637386162636465666768"},
		{"commit", Word0(0, TypeCommit), Word1(System, 4, 0), "", "four", "0000000000000300f259b10604000006666f7572000000000000000000000000"},
		{"filler", Word0(0, TypeFiller), Word1(System, 0, 0), "", "", "0000000000000000aa8d378b00000006"},
	} {
		got := image(0x40, c.w0, c.w1, []byte(c.key), []byte(c.value))
		if hex.EncodeToString(got) != c.want {
			t.Errorf("%s: %x, want %s", c.name, got, c.want)
		}
	}
	require.Equal(t, uint64(0xf4fbb05bf721683c), uint64(testSeed))
}

// TestHash_Golden: the hash of a key changes, and its chain on disk is not found
// any more.
func TestHash_Golden(t *testing.T) {
	t.Parallel()
	key := []byte("The quick brown fox jumps over the lazy dog")
	for n, want := range map[int]uint64{
		1:  0x653295f001db50df,
		2:  0xa2d88c87050ef881,
		3:  0x7f895d4021d176f7,
		4:  0x419253e85041455b,
		7:  0x062c00562d66e162,
		8:  0x9bc5221097472f3c,
		9:  0xaeb6d6e8968f4fc1,
		16: 0xb6a8edfba07c3df5,
		17: 0x86df46c0fbbd49bb,
		32: 0x8fd38584a44f0565,
		33: 0x226e2c90c43c53f7,
		43: 0xf00b387b89377862,
	} {
		require.Equalf(t, want, Hash(42, key[:n]), "%d bytes: 0x%016x", n, Hash(42, key[:n]))
	}
}

// TestHash_Spread: keys that differ in one bit share a bucket or a tag more
// often than chance would have it.
func TestHash_Spread(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 3, 4, 7, 8, 9, 16, 17, 40} {
		key := make([]byte, n)
		base := Hash(1, key)
		for bit := range 8 * n {
			key[bit/8] ^= 1 << (bit % 8)
			flipped := base ^ Hash(1, key)
			key[bit/8] ^= 1 << (bit % 8)
			require.NotZero(t, flipped<<32, "low half, %d bytes, bit %d", n, bit)
			require.NotZero(t, flipped>>48, "high bits, %d bytes, bit %d", n, bit)
		}
		require.NotEqual(t, base, Hash(2, key), "the seed does not matter")
	}
}

// TestVerify_EveryByte: a changed byte passes for the record that was written.
// Only the body of a filler is not covered.
func TestVerify_EveryByte(t *testing.T) {
	t.Parallel()
	const addr = Addr(1 << 30)
	for _, b := range [][]byte{
		image(addr, Word0(77, 5), Word1(Value, 29, 0), []byte("abcde"), bytes.Repeat([]byte("v"), 29)),
		image(addr, Word0(77, 8), Word1(Tombstone, 0, 0), []byte("12345678"), nil),
		image(addr, Word0(0, TypePage), Word1(System, 48, 0), nil, make([]byte, 48)),
		image(addr, Word0(0, TypeChunk), Word1(System, 1, 0), nil, []byte{1}),
	} {
		// Behind the record lies another one: a length that was changed finds bytes there.
		buf := append(bytes.Clone(b), image(addr+Addr(len(b)/Unit), Word0(1, 3), Word1(Value, 100, 0), []byte("xyz"), make([]byte, 100))...)
		_, _, ok := Verify(buf, testSeed, addr)
		require.True(t, ok)
		for i := range b {
			for bit := range 8 {
				buf[i] ^= 1 << bit
				_, _, ok := Verify(buf, testSeed, addr)
				require.False(t, ok, "byte %d bit %d", i, bit)
				buf[i] ^= 1 << bit
			}
		}
		for n := range len(b) {
			_, _, ok := Verify(b[:n], testSeed, addr)
			require.False(t, ok, "only %d bytes of it", n)
		}
		_, _, ok = Verify(b, testSeed, addr+1)
		require.False(t, ok, "at another address")
		_, _, ok = Verify(b, NewSeed([16]byte{1}, 7), addr)
		require.False(t, ok, "of another store")
		_, _, ok = Verify(b, NewSeed([16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, 8), addr)
		require.False(t, ok, "of another generation")
	}
}

// TestVerifyRun: records that follow each other are taken where one of them alone is
// not, or the other way round; or too many of them, or too few.
func TestVerifyRun(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 3000 {
		addr := Addr(rng.Uint64N(1 << 40))
		var buf []byte
		for range rng.IntN(20) {
			kind, flags := Kind(rng.IntN(3)), uint64(0)
			if rng.IntN(4) == 0 {
				flags = []uint64{Expiry, Invalid, Moved, Sealed}[rng.IntN(4)]
			}
			key, value := make([]byte, rng.IntN(10)), make([]byte, rng.IntN([]int{9, 30, 300}[rng.IntN(3)]))
			for _, b := range [][]byte{key, value} {
				for i := range b {
					b[i] = byte(rng.Uint32())
				}
			}
			w0, w1 := Word0(Addr(rng.Uint64N(1<<40)), len(key)), Word1(kind, len(value), flags)
			if rng.IntN(12) == 0 {
				w0, w1, key = Word0(0, TypeChunk), Word1(System, len(value), 0), nil
			}
			buf = append(buf, image(addr+Addr(len(buf)/Unit), w0, w1, key, value)...)
		}
		switch rng.IntN(3) {
		case 0:
			if len(buf) > 0 {
				buf[rng.IntN(len(buf))] ^= 1 << rng.IntN(8)
			}
		case 1:
			buf = buf[:rng.IntN(len(buf)+1)&^(Unit-1)]
		}
		ends := make([]uint32, rng.IntN(24))
		var want []uint32
		for at := 0; len(want) < len(ends); {
			w0, w1, ok := Verify(buf[at:], testSeed, addr+Addr(at/Unit))
			if !ok || KindOf(w1) == System || Size(w0, w1) == HeaderSize {
				break // those of the header alone, without key or value, are nobody's
			}
			at += Size(w0, w1)
			want = append(want, uint32(at))
		}
		n := VerifyRun(buf, testSeed, addr, ends)
		require.Equal(t, len(want), n, "round %d", round)
		require.Equal(t, want, append([]uint32(nil), ends[:n]...), "round %d", round)
	}
}

// TestVerify_Filler: a filler's length is not covered, or its body is.
func TestVerify_Filler(t *testing.T) {
	t.Parallel()
	b := memory(64)
	PutFiller(b)
	Seal(pointer(b), testSeed, 8)
	w0, w1, ok := Verify(b, testSeed, 8)
	require.True(t, ok)
	require.True(t, IsFiller(w0, w1))
	require.Equal(t, 64, Size(w0, w1))
	for i := range HeaderSize {
		b[i] ^= 1
		_, _, ok := Verify(b, testSeed, 8)
		require.False(t, ok, "byte %d", i)
		b[i] ^= 1
	}
	b[20] ^= 1
	_, _, ok = Verify(b, testSeed, 8)
	require.True(t, ok, "the body of a filler has no meaning")
}

// TestWrite_Lengths: a length at an alignment border loses a byte, overlaps, or
// leaves what the frame held before in the padding.
func TestWrite_Lengths(t *testing.T) {
	t.Parallel()
	key, value := bytes.Repeat([]byte("k"), 40), bytes.Repeat([]byte("v"), 80)
	for k := 0; k <= len(key); k++ {
		for v := 0; v <= len(value); v++ {
			w0, w1 := Word0(5, k), Word1(Value, v, 0)
			if k == 0 {
				w0, w1 = Word0(5, TypeChunk), Word1(System, v, 0)
			}
			size := Size(w0, w1)
			if k > 0 {
				require.Equal(t, size, SizeFor(k, v))
			} else {
				require.Equal(t, size, SystemSize(v))
			}
			require.Zero(t, size%Unit)
			b := memory(size + Unit)
			Write(pointer(b), w0, w1, key[:k], value[:v])

			want := make([]byte, size, size+Unit)
			binary.LittleEndian.PutUint64(want, w0)
			binary.LittleEndian.PutUint64(want[8:], w1)
			copy(want[HeaderSize:], key[:k])
			copy(want[ValueOffset(w0, w1):], value[:v])
			want = append(want, bytes.Repeat([]byte{0xa5}, Unit)...)
			require.Equal(t, want, b, "key of %d, value of %d bytes", k, v)

			g0, g1 := Words(b)
			require.Equal(t, [2]uint64{w0, w1}, [2]uint64{g0, g1})
			require.Equal(t, string(value[:v]), string(ValueOf(b, g0, g1)))
			require.Equal(t, Addr(5), Prev(g0))
			require.Equal(t, v, ValueLen(g1))
			if k > 0 {
				require.Equal(t, string(key[:k]), string(Key(b, g0)))
				require.True(t, KeyEqual(pointer(b), g0, key[:k]))
				require.False(t, KeyEqual(pointer(b), g0, append(bytes.Clone(key[:k-1]), 'x')))
				require.False(t, KeyEqual(pointer(b), g0, key[:k-1]))
			}
		}
	}
}

// TestWords_Limits: the largest lengths and addresses run into their neighbours.
func TestWords_Limits(t *testing.T) {
	t.Parallel()
	w0, w1 := Word0(addrMask, MaxKey), Word1(System, MaxValue, Expiry|Invalid|Sealed|Moved)
	require.Equal(t, Addr(addrMask), Prev(w0))
	require.Equal(t, MaxKey, KeyLen(w0))
	require.Equal(t, MaxValue, ValueLen(w1))
	require.Equal(t, System, KindOf(w1))
	require.Zero(t, w1>>63, "the spare bit")
	require.Zero(t, Check(w1))
	for _, flag := range []uint64{Expiry, Invalid, Sealed, Moved} {
		require.Equal(t, Word1(Big, MaxValue, 0), Word1(Big, MaxValue, flag)&^flag)
	}
	require.Equal(t, uint32(0xfffffffe), Check(WithCheck(w1, 0xfffffffe)))
	require.Equal(t, w1, WithCheck(WithCheck(w1, 0xfffffffe), 0))
	require.Equal(t, HeaderSize+8+8, ValueOffset(Word0(0, 1), Word1(Value, 1, Expiry)), "expiry stands before the value")
	require.Equal(t, HeaderSize, ValueOffset(Word0(0, 1), Word1(System, 1, 0)), "a System record has no key")
}

// TestCopy_RoundTrip: a copy loses bytes at its end, writes past it, or leaves
// old bytes in the padding of the last word.
func TestCopy_RoundTrip(t *testing.T) {
	t.Parallel()
	rng := newRand(t)
	for n := 0; n <= 600; n++ {
		src := make([]byte, n+1)
		for i := range src {
			src[i] = byte(rng.Uint32())
		}
		src = src[1:] // private memory need not be aligned
		in := memory(n + 24)
		CopyIn(pointer(in), pointer(src), n)
		require.True(t, bytes.Equal(src, in[:n]), "in, %d bytes", n)
		padded := (n + 7) &^ 7
		require.Equal(t, make([]byte, padded-n), in[n:padded:padded], "padding of %d bytes", n)
		require.Equal(t, bytes.Repeat([]byte{0xa5}, n+24-padded), in[padded:], "behind %d bytes", n)

		out := bytes.Repeat([]byte{0x5a}, n+2)
		CopyOut(unsafe.Add(pointer(out), 1), pointer(in), n)
		require.True(t, bytes.Equal(src, out[1:n+1]), "out, %d bytes", n)
		require.Equal(t, byte(0x5a), out[0])
		require.Equal(t, byte(0x5a), out[n+1], "written behind %d bytes", n)
	}
}

// TestLatch: two hold the latch at once, a finished change is not seen, or a
// given-back latch looks like a change.
func TestLatch(t *testing.T) {
	t.Parallel()
	b := memory(64)
	p := pointer(b)
	w1 := Word1(Value, 8, 0)
	Write(p, Word0(0, 8), w1, []byte("12345678"), []byte("abcdefgh"))
	require.True(t, TryLock(p, w1))
	require.True(t, Locked(Load1(p)))
	require.False(t, TryLock(p, w1), "taken")
	require.False(t, TryLock(p, Load1(p)), "taken, and the word known")
	Unlock(p, w1)
	require.Equal(t, w1, Load1(p))
	require.True(t, TryLock(p, w1))
	UnlockChanged(p, w1, Word1(Tombstone, 8, Sealed))
	next := Load1(p)
	require.False(t, Locked(next))
	require.Equal(t, Tombstone, KindOf(next))
	require.NotZero(t, next&Sealed)
	require.Equal(t, w1&checkMask+seqStep, next&checkMask)
	require.False(t, TryLock(p, w1), "it has changed")
	// The count wraps without touching its neighbours.
	Store1(p, w1|checkMask&^lockBit)
	require.True(t, TryLock(p, w1|checkMask&^lockBit))
	UnlockChanged(p, w1|checkMask&^lockBit, w1)
	require.Equal(t, w1, Load1(p))
}

// TestSeqlock_Torn: a reader takes a value that nobody wrote: half of one and
// half of another, or the length of one with the bytes of another.
func TestSeqlock_Torn(t *testing.T) {
	t.Parallel()
	const valueMax = 900
	rounds := 20_000
	if testing.Short() {
		rounds = 3_000
	}
	b := memory(HeaderSize + 8 + valueMax + 8)
	p := pointer(b)
	w0 := Word0(0, 8)
	// A value of n bytes is n times the byte n%251: both can be told apart.
	fill := func(v []byte) {
		for i := range v {
			v[i] = byte(len(v) % 251)
		}
	}
	first := make([]byte, 8)
	fill(first)
	Write(p, w0, Word1(Value, 8, 0), []byte("12345678"), first)
	var writers, readers sync.WaitGroup
	done := make(chan struct{})
	var taken atomic.Int64
	for w := range 2 {
		writers.Add(1)
		go func() {
			defer writers.Done()
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			// With one processor readers may get their turn late.
			for i := 0; i < rounds || taken.Load() == 0 && i < 1000*rounds; i++ {
				v := make([]byte, 1+rng.IntN(valueMax))
				fill(v)
				for {
					w1 := Load1(p)
					if !TryLock(p, w1) {
						continue
					}
					CopyIn(unsafe.Add(p, ValueOffset(w0, w1)), pointer(v), len(v))
					UnlockChanged(p, w1, Word1(Value, len(v), 0))
					break
				}
			}
		}()
	}
	for range 2 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			buf := make([]byte, valueMax)
			for {
				select {
				case <-done:
					return
				default:
				}
				w1 := Load1(p)
				if Locked(w1) {
					continue
				}
				v := buf[:ValueLen(w1)]
				CopyOut(pointer(v), unsafe.Add(p, ValueOffset(w0, w1)), len(v))
				if Load1(p) != w1 {
					continue
				}
				for i := range v {
					if v[i] != byte(len(v)%251) {
						t.Errorf("torn: byte %d of %d is %d", i, len(v), v[i])
						return
					}
				}
				taken.Add(1)
			}
		}()
	}
	writers.Wait()
	close(done)
	readers.Wait()
	require.NotZero(t, taken.Load(), "nobody ever read anything")
}

// FuzzVerify: bytes from a disk make Verify read outside of them, or a record
// verifies whose words say something else than what was sealed.
func FuzzVerify(f *testing.F) {
	f.Add(image(8, Word0(77, 5), Word1(Value, 9, 0), []byte("abcde"), []byte("123456789")), uint64(8))
	f.Add(image(8, Word0(0, TypeFiller), Word1(System, 16, 0), nil, make([]byte, 16)), uint64(8))
	f.Add(make([]byte, 15), uint64(4))
	f.Add(bytes.Repeat([]byte{0xff}, 100), uint64(4))
	f.Fuzz(func(t *testing.T, b []byte, addr uint64) {
		w0, w1, ok := Verify(b, testSeed, Addr(addr))
		if !ok {
			return
		}
		size := Size(w0, w1)
		require.LessOrEqual(t, size, len(b))
		require.LessOrEqual(t, ValueOffset(w0, w1)+ValueLen(w1), size)
		if KindOf(w1) != System {
			require.Len(t, Key(b, w0), KeyLen(w0))
		}
		require.Len(t, ValueOf(b, w0, w1), ValueLen(w1))
		require.Zero(t, Check(w1)&lockBit)
	})
}
