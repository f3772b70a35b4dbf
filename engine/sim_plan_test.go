package engine

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"rskv/ioring/iotest/sim"
)

// The flags that replay one simulation, or a smaller one made of it.
var (
	simSeeds   = flag.Int("sim.seeds", 100, "how many seeds TestSim runs; 0: until -sim.time has passed")
	simTime    = flag.Duration("sim.time", 0, "how long TestSim goes on, at most; 0: no limit")
	simFirst   = flag.Uint64("sim.first", 0, "the first seed of TestSim; 0 draws one")
	simSeed    = flag.Uint64("sim.seed", 1, "run this seed only, see TestSim_Seed")
	simLives   = flag.Int("sim.lives", 0, "lives of the one simulation; 0: as its seed says")
	simOps     = flag.Int("sim.ops", 0, "operations of each client in a life, at most; 0: as its seed says")
	simClients = flag.Int("sim.clients", 0, "clients, at most; 0: as its seed says")
	simOnly    = flag.String("sim.chores", "all", "what goes on beside the clients: names with commas, all or none")
	simFaults  = flag.String("sim.faults", "all", "faults as life/kind@number:argument with commas; all: as its seed says; none")
	simTrace   = flag.Bool("sim.trace", false, "print every event of the one simulation")
)

// simPlan is everything that a simulation is made of. It follows from the seed;
// what fails is made smaller by taking parts away, see simShrink.
type simPlan struct {
	seed    uint64
	ops     int // of each client in a life, at most; 0: no limit
	clients int // at most; 0: no limit
	lives   []simLifePlan
}

// simLifePlan is one life of a store: from an Open to a power cut or a Close.
type simLifePlan struct {
	chores []string
	faults []sim.Fault
	// harmed says that what is on the disk may be damaged by now: then answers may
	// be ErrCorrupt, but still not wrong.
	harmed bool
}

// simLivesMax is how many lives a plan has before the last two.
const simLivesMax = 4

// newSimPlan draws a plan. In all lives but the last two the disk keeps what it
// promises; in the last but one of some plans it does not, and the last one shows
// what has become of it.
func newSimPlan(seed uint64) simPlan {
	rng := rand.New(rand.NewPCG(seed, 1))
	p := simPlan{seed: seed}
	harm := rng.IntN(3) == 0
	n := 1 + rng.IntN(simLivesMax)
	for i := range n + 2 {
		l := simLifePlan{harmed: harm && i >= n}
		for _, c := range simChoreNames() {
			if rng.IntN(2) == 0 {
				l.chores = append(l.chores, c)
			}
		}
		switch {
		case i < n:
			l.faults = drawFaults(rng, false)
		case i == n:
			l.faults = drawFaults(rng, harm)
		}
		p.lives = append(p.lives, l)
	}
	return p
}

// drawFaults draws what goes wrong in a life.
func drawFaults(rng *rand.Rand, harm bool) (faults []sim.Fault) {
	at := func(k sim.FaultKind) sim.Fault {
		most := 200
		if k == sim.SyncError || k == sim.SyncLost || k == sim.MetaError || k == sim.MetaFull {
			most = 40
		}
		return sim.Fault{Kind: k, At: 1 + rng.IntN(1+rng.IntN(most)), Arg: rng.Uint64()}
	}
	kinds := slices.DeleteFunc(sim.Faults(), func(k sim.FaultKind) bool { return k == sim.PowerCut || k.Harms() != harm })
	for range rng.IntN(4) {
		faults = append(faults, at(kinds[rng.IntN(len(kinds))]))
	}
	if rng.IntN(4) > 0 {
		faults = append(faults, at(sim.PowerCut))
	}
	return faults
}

// command is the command line that runs the plan.
func (p *simPlan) command() string {
	args := []string{fmt.Sprintf("-sim.seed=%d", p.seed), fmt.Sprintf("-sim.lives=%d", len(p.lives))}
	if p.ops > 0 {
		args = append(args, fmt.Sprintf("-sim.ops=%d", p.ops))
	}
	if p.clients > 0 {
		args = append(args, fmt.Sprintf("-sim.clients=%d", p.clients))
	}
	whole := newSimPlan(p.seed)
	var faults, chores []string
	same := true
	for i, l := range p.lives {
		for _, f := range l.faults {
			faults = append(faults, fmt.Sprintf("%d/%v", i, f))
		}
		same = same && slices.Equal(l.chores, whole.lives[i].chores)
		chores = append(chores, l.chores...)
	}
	if !same {
		args = append(args, "-sim.chores="+orNone(slices.Compact(slices.Sorted(slices.Values(chores)))))
	}
	args = append(args, "-sim.faults="+orNone(faults))
	return "go test ./engine -run 'TestSim_Seed$' -v " + strings.Join(args, " ")
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ",")
}

// simPlanOfFlags is the plan that the flags ask for.
func simPlanOfFlags() (simPlan, error) {
	p := newSimPlan(*simSeed)
	if n := *simLives; n > 0 && n < len(p.lives) {
		p.lives = p.lives[:n]
	}
	p.ops, p.clients = *simOps, *simClients
	if *simOnly != "all" {
		only := strings.Split(*simOnly, ",")
		p.keepChores(func(c string) bool { return slices.Contains(only, c) })
	}
	if *simFaults == "all" {
		return p, nil
	}
	for i := range p.lives {
		p.lives[i].faults = nil
	}
	if *simFaults == "none" {
		return p, nil
	}
	for text := range strings.SplitSeq(*simFaults, ",") {
		life, fault, _ := strings.Cut(text, "/")
		i, err := strconv.Atoi(life)
		if err != nil || i < 0 || i >= len(p.lives) {
			return p, fmt.Errorf("fault %q: want life/kind@number:argument, a life from 0 to %d", text, len(p.lives)-1)
		}
		f, err := sim.ParseFault(fault)
		if err != nil {
			return p, err
		}
		p.lives[i].faults = append(p.lives[i].faults, f)
	}
	return p, nil
}

// keepChores leaves those chores that keep chooses.
func (p *simPlan) keepChores(keep func(string) bool) {
	for i := range p.lives {
		p.lives[i].chores = slices.DeleteFunc(slices.Clone(p.lives[i].chores), func(c string) bool { return !keep(c) })
	}
}

// clone is a copy that can be changed.
func (p simPlan) clone() simPlan {
	p.lives = slices.Clone(p.lives)
	for i := range p.lives {
		p.lives[i].faults = slices.Clone(p.lives[i].faults)
	}
	return p
}

// simShrink makes a failing plan smaller as long as it fails, and returns the
// smallest found: fewer lives, clients, chores, faults and operations, each by
// halves where that is possible. The failure may change on the way; every one is
// worth being looked at. run returns what a plan fails with; it is called for so
// long at most.
func simShrink(p simPlan, err error, most time.Duration, run func(simPlan) error) (simPlan, error) {
	began := time.Now()
	try := func(smaller simPlan) bool {
		if time.Since(began) > most {
			return false
		}
		if e := run(smaller); e != nil {
			p, err = smaller, e
			return true
		}
		return false
	}
	for again := true; again && time.Since(began) < most; {
		again = false
		for n := 1; n < len(p.lives); n++ {
			s := p.clone()
			s.lives = s.lives[:n]
			if try(s) {
				again = true
				break
			}
		}
		for i := len(p.lives) - 1; i >= 0; i-- {
			for j := len(p.lives[i].faults) - 1; j >= 0; j-- {
				s := p.clone()
				s.lives[i].faults = slices.Delete(s.lives[i].faults, j, j+1)
				again = try(s) || again
			}
		}
		for _, name := range simChoreNames() {
			s := p.clone()
			s.keepChores(func(c string) bool { return c != name })
			if s.countChores() < p.countChores() {
				again = try(s) || again
			}
		}
		for n := 1; n < simClientsMax && (p.clients == 0 || n < p.clients); n++ {
			s := p.clone()
			s.clients = n
			if try(s) {
				again = true
				break
			}
		}
		for n := simOpsMax; n > 0; n /= 2 {
			for p.ops == 0 || p.ops > n {
				s := p.clone()
				s.ops = n
				if p.ops > 0 {
					s.ops = p.ops - n
				}
				if !try(s) {
					break
				}
				again = true
			}
		}
	}
	return p, err
}

func (p *simPlan) countChores() (n int) {
	for _, l := range p.lives {
		n += len(l.chores)
	}
	return n
}
