// Package sim is one machine, simulated: a scheduler, a clock and a disk of which
// one seed decides everything.
//
//	World   runs fibers one at a time, each up to the point where it waits or
//	        yields; what comes next, and how long everything takes, is drawn
//	Disk    a Device whose operations take effect, and answer, at times that are
//	        drawn, and which goes wrong as a plan says
//	Image   what a power cut leaves of it
//
// A run with the same seed and the same code is the same run, event for event:
// World.Hash sums up the whole of it, so that two runs can be compared.
//
// # Why fibers, and not testing/synctest
//
// synctest makes time virtual, but leaves the order of goroutines to the runtime:
// two runs of one seed interleave differently, and a failure found once in ten
// thousand runs cannot be replayed. Fibers are coroutines (iter.Pull): a fiber
// runs until it calls Wait, Yield or Sleep, and then control is back in the loop
// of World.Run, which alone decides who is next. No two fibers ever run at the
// same time, so nothing here, nor in what is tested, has a race that a seed could
// not repeat. What this cannot find, wrong orders of memory accesses between two
// points where somebody waits, is the business of the race detector and of the
// tests with real goroutines.
//
// # Rules for what runs in a World
//
//   - It starts no goroutine, reads no clock, draws no random number but from
//     the World or from a seed of its own, and does not go over a map where the
//     order matters.
//   - It waits by Wait, Yield and Sleep only. A fiber may hold a mutex only
//     between two of these: who blocks in a mutex blocks the world.
package sim
