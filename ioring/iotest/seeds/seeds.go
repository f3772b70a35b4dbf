// Package seeds gives the random tests of all packages their seeds. Only tests import it.
package seeds

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// New returns the seed of a random test and logs it: another one each time, or that
// of the variable TEST_SEED. It replays what the test draws, not how goroutines, or
// processes, take turns.
func New(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("TEST_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "TEST_SEED")
		seed = n
	}
	t.Logf("replay with TEST_SEED=%d", seed)
	return seed
}

// Rand returns a generator of a New seed.
func Rand(t testing.TB) *rand.Rand {
	t.Helper()
	return rand.New(rand.NewPCG(New(t), 0))
}
