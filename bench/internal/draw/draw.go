// Package draw decides which key comes next: key numbers below n, drawn from a
// seed, so that a run can be repeated.
//
//	Uniform  every key is as likely as any other
//	Zipf     key of rank r with a weight of 1/r^theta, the ranks scattered over
//	         the keys so that hot keys are not neighbours (YCSB's "scrambled
//	         zipfian")
//	Replay   numbers that another source drew before, again and again: takes a
//	         slow generator out of the loop that is measured
//	Shuffle  every key once, in no order
//
// A Source fills a slice at a time: a call for each key would cost a good part
// of what a batched read costs. Each has cache lines of its own: those of several
// goroutines are made one after the other, and each is written all the time.
package draw

import (
	"fmt"
	"math"
	"math/bits"
)

// Source yields key numbers. It belongs to one goroutine.
type Source interface {
	// Fill sets every element of dst to a key number.
	Fill(dst []uint64)
}

// ownLines is two cache lines: processors fetch them in pairs.
const ownLines = 128

// Uniform draws all keys below n alike.
type Uniform struct {
	state, n uint64
	_        [ownLines - 16]byte
}

// NewUniform returns a source of numbers below n; n must not be 0.
func NewUniform(n, seed uint64) *Uniform { return &Uniform{state: seed, n: n} }

// Fill implements Source.
func (u *Uniform) Fill(dst []uint64) {
	state := u.state
	for i := range dst {
		state += 0x9E3779B97F4A7C15
		dst[i], _ = bits.Mul64(mix(state), u.n)
	}
	u.state = state
}

// mix is the finalizer of splitmix64: a bijection whose every output bit depends
// on every input bit.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// Zipf draws a few keys often and most seldom. The method is Gray's ("Quickly
// generating billion-record synthetic databases", 1994), as in YCSB.
type Zipf struct {
	state        uint64
	n, spread    uint64  // ranks; numbers they are scattered over
	zeta, second float64 // sum of all weights; of the first two
	alpha, eta   float64
	_            [ownLines - 56]byte
}

// NewZipf returns a source of numbers below n with 0 < theta < 1. It takes some
// 30 ns for each key of n.
func NewZipf(n uint64, theta float64, seed uint64) *Zipf {
	if n < 2 || theta <= 0 || theta >= 1 {
		panic(fmt.Sprintf("draw: zipf over %d keys with theta %g", n, theta))
	}
	z := &Zipf{state: seed, n: n, spread: n, alpha: 1 / (1 - theta)}
	for i := uint64(1); i <= n; i++ {
		z.zeta += math.Pow(float64(i), -theta)
	}
	z.curve(theta)
	return z
}

// ScrambledItems and scrambledZeta are YCSB's: its scrambled zipfian draws among
// ten thousand million ranks with theta 0.99, whatever the number of keys, and
// then scatters them over the keys.
const (
	ScrambledItems = 10_000_000_000
	ScrambledTheta = 0.99
	scrambledZeta  = 26.46902820178302
)

// NewScrambled returns YCSB's scrambled zipfian over the numbers below n. It is
// flatter than NewZipf over the same numbers: the hottest key has 3.8 % of the
// draws.
func NewScrambled(n, seed uint64) *Zipf {
	z := &Zipf{state: seed, n: ScrambledItems, spread: n, zeta: scrambledZeta, alpha: 1 / (1 - ScrambledTheta)}
	z.curve(ScrambledTheta)
	return z
}

// curve lays the curve that all ranks but the first two come from.
func (z *Zipf) curve(theta float64) {
	z.second = 1 + math.Pow(0.5, theta)
	z.eta = (1 - math.Pow(2/float64(z.n), 1-theta)) / (1 - z.second/z.zeta)
}

// Reseeded returns the same distribution from another seed, for another
// goroutine, without counting up the weights again.
func (z *Zipf) Reseeded(seed uint64) *Zipf {
	again := *z
	again.state = seed
	return &again
}

// Fill implements Source.
func (z *Zipf) Fill(dst []uint64) {
	for i := range dst {
		dst[i] = Scatter(z.rank(), z.spread)
	}
}

// Ranks sets every element of dst to a rank, 0 being the most frequent, that was
// not scattered.
func (z *Zipf) Ranks(dst []uint64) {
	for i := range dst {
		dst[i] = z.rank()
	}
}

// rank draws a rank, 0 being the most frequent.
func (z *Zipf) rank() uint64 {
	z.state += 0x9E3779B97F4A7C15
	u := float64(mix(z.state)>>11) / (1 << 53)
	switch weight := u * z.zeta; {
	case weight < 1:
		return 0
	case weight < z.second:
		return 1
	}
	r := uint64(float64(z.n) * math.Pow(z.eta*u-z.eta+1, z.alpha))
	return min(r, z.n-1)
}

// Replay repeats what another source drew.
type Replay struct {
	drawn []uint32
	next  int
	_     [ownLines - 32]byte
}

// NewReplay draws count numbers from source, which must be below 2^32.
func NewReplay(source Source, count int) *Replay {
	r := &Replay{drawn: make([]uint32, count)}
	var some [256]uint64
	for at := 0; at < count; {
		n := min(len(some), count-at)
		source.Fill(some[:n])
		for _, x := range some[:n] {
			r.drawn[at] = uint32(x)
			at++
		}
	}
	return r
}

// Fill implements Source.
func (r *Replay) Fill(dst []uint64) {
	next := r.next
	for i := range dst {
		if next == len(r.drawn) {
			next = 0
		}
		dst[i] = uint64(r.drawn[next])
		next++
	}
	r.next = next
}

// Scatter maps rank to a number below n, so that ranks that follow each other do
// not lie beside each other. Several ranks may meet in one number, as in YCSB.
func Scatter(rank, n uint64) uint64 {
	x, _ := bits.Mul64(mix(rank^0x5851F42D4C957F2D), n)
	return x
}

// Shuffle is an order of all numbers below n, without memory for them: a Feistel
// network over the next power of four, walked until it comes out below n.
type Shuffle struct {
	n, seed uint64
	half    uint // bits of each half
}

// NewShuffle returns an order of the numbers below n, another for each seed. n is
// 1 to 2^62.
func NewShuffle(n, seed uint64) Shuffle {
	return Shuffle{n: n, seed: seed, half: uint(max(bits.Len64(n-1)+1, 2) / 2)}
}

// shuffleRounds is enough for neighbours not to stay neighbours.
const shuffleRounds = 4

// At returns the number in place i, which is below n. Every number has one place.
func (s Shuffle) At(i uint64) uint64 {
	mask := uint64(1)<<s.half - 1
	for {
		left, right := i>>s.half, i&mask
		for round := range uint64(shuffleRounds) {
			left, right = right, left^mix(right+s.seed+round*0x9E3779B97F4A7C15)&mask
		}
		if i = left<<s.half | right; i < s.n {
			return i
		}
	}
}
