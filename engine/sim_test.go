package engine

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest/sim"
)

// TestSim: the store loses what was durable, brings back what was gone, answers
// what nobody wrote, stops, or does not say that it has met damage; in any order
// of completions, with any latency, whatever the disk does and whenever the power
// goes. See package sim and simModel.
func TestSim(t *testing.T) {
	first := *simFirst
	if first == 0 {
		first = newSeed(t)%(1<<32) + 1
	}
	seeds := *simSeeds
	if testing.Short() {
		seeds = min(seeds, 20)
	}
	t.Logf("seeds from -sim.first=%d on", first)
	var mu sync.Mutex
	next, began := 0, time.Now()
	var sum simTotals
	sum.faults = map[sim.FaultKind]int{}
	var wg sync.WaitGroup
	failed := false
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				mu.Lock()
				seed := first + uint64(next)
				stop := failed || seeds > 0 && next >= seeds || *simTime > 0 && time.Since(began) > *simTime
				next++
				mu.Unlock()
				if stop {
					return
				}
				total, err := simulate(newSimPlan(seed), nil)
				mu.Lock()
				sum.add(total)
				if err != nil && !failed {
					failed = true
					mu.Unlock()
					simReport(t, newSimPlan(seed), err)
					mu.Lock()
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%d seeds in %.1f s: %v", next-runtime.GOMAXPROCS(0), time.Since(began).Seconds(), sum)
}

func (t *simTotals) add(o simTotals) {
	t.lives += o.lives
	t.opens += o.opens
	t.cuts += o.cuts
	t.closes += o.closes
	t.ops += o.ops
	t.refused += o.refused
	t.steps += o.steps
	t.cached += o.cached
	t.swept += o.swept
	for k, n := range o.faults {
		t.faults[k] += n
	}
}

func (t simTotals) String() string {
	s := fmt.Sprintf("%d lives, %d opens (%d refused for damage), %d power cuts, %d clean ends, %d operations, %d from the read cache, %d keys counted out, %d steps",
		t.lives, t.opens, t.refused, t.cuts, t.closes, t.ops, t.cached, t.swept, t.steps)
	for _, k := range sim.Faults() {
		s += fmt.Sprintf(", %d %v", t.faults[k], k)
	}
	return s
}

// simReport makes a plan that fails smaller, and says how to run it.
func simReport(t *testing.T, p simPlan, err error) {
	t.Errorf("seed %d: %v", p.seed, err)
	t.Logf("the whole of it:\n%s", p.command())
	small, why := simShrink(p, err, time.Minute, func(p simPlan) error {
		_, err := simulate(p, nil)
		return err
	})
	t.Logf("made smaller, it fails with: %v\n%s", why, small.command())
}

// TestSim_Seed runs one simulation, which the flags describe.
func TestSim_Seed(t *testing.T) {
	p, err := simPlanOfFlags()
	require.NoError(t, err)
	var trace func(string)
	if *simTrace {
		trace = func(line string) { fmt.Fprintln(os.Stdout, line) }
	}
	total, err := simulate(p, trace)
	t.Logf("%v, hash %x", total, total.hash)
	require.NoError(t, err)
}

// TestSim_Replays: a simulation cannot be repeated, so that what it has found
// cannot be looked at.
func TestSim_Replays(t *testing.T) {
	seed := newSeed(t)
	for i := range uint64(4) {
		p := newSimPlan(seed + i)
		first, err1 := simulate(p, nil)
		again, err2 := simulate(p, nil)
		require.Equal(t, first.hash, again.hash, "seed %d", p.seed)
		require.Equal(t, err1 == nil, err2 == nil, "seed %d: %v, %v", p.seed, err1, err2)
	}
}
