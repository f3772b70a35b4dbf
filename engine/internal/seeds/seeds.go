// Package seeds gives the random tests of the engine's packages their seeds: another one
// each time, or the one of -seed. Only tests import it.
package seeds

import (
	"flag"
	"math/rand/v2"
	"testing"
)

var given = flag.Uint64("seed", 0, "seed of the random tests; 0 draws one")

// New draws a seed and prints it, or takes the one of -seed.
func New(t testing.TB) uint64 {
	t.Helper()
	s := *given
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("replay with -seed %d", s)
	return s
}

// Rand returns a generator of a New seed.
func Rand(t testing.TB) *rand.Rand {
	t.Helper()
	return rand.New(rand.NewPCG(New(t), 0))
}
