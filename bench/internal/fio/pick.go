package fio

import (
	"math"
	"math/rand/v2"

	"rskv/bench/internal/draw"
)

// picker says which block comes next. It belongs to the job's goroutine.
type picker struct {
	job     *Job
	unit    int64  // offsets are multiples of it
	first   int64  // offset of the first block
	blocks  uint64 // places a block may begin at
	segment int64  // no request crosses a multiple of it; 0: there is none
	rng     *rand.Rand
	order   func() uint64 // of a random job: the next block's number
	next    [2]int64      // of a sequential job, by direction: the next offset
}

// newPicker makes the picker of a job whose requests must not cross segments.
func newPicker(j *Job, segment int64, seed uint64) *picker {
	p := &picker{
		job: j, unit: j.unit(), first: j.Offset, segment: segment,
		rng: rand.New(rand.NewPCG(seed, 0x9E3779B97F4A7C15)),
	}
	p.first -= p.first % p.unit
	p.blocks = uint64((j.Size - p.first) / p.unit)
	p.next = [2]int64{p.first, p.first}
	p.order = p.ordering()
	return p
}

// ordering chooses how a random job goes through its blocks.
func (p *picker) ordering() func() uint64 {
	j := p.job
	switch {
	case p.blocks < 2:
		return func() uint64 { return 0 }
	case j.Dist.Kind == "pareto":
		power := math.Log(j.Dist.Theta) / math.Log(1-j.Dist.Theta)
		return func() uint64 {
			rank := uint64(float64(p.blocks-1) * math.Pow(p.rng.Float64(), power))
			return draw.Scatter(rank, p.blocks)
		}
	case j.Dist.Kind == "zipf" && j.Dist.Theta > 1:
		z := rand.NewZipf(p.rng, j.Dist.Theta, 1, p.blocks-1)
		return func() uint64 { return draw.Scatter(z.Uint64(), p.blocks) }
	case j.Dist.Kind == "zipf":
		z := draw.NewZipf(p.blocks, j.Dist.Theta, p.rng.Uint64())
		return func() uint64 {
			var one [1]uint64
			z.Fill(one[:])
			return one[0]
		}
	case j.NoRandomMap || j.Block[reading].Least != j.Block[reading].Most || j.Block[writing].Least != j.Block[writing].Most:
		return func() uint64 { return p.rng.Uint64N(p.blocks) }
	}
	// Like fio with its map: no block comes again before all have come.
	pass := draw.NewShuffle(p.blocks, p.rng.Uint64())
	left := p.blocks
	return func() uint64 {
		if left == 0 {
			pass, left = draw.NewShuffle(p.blocks, p.rng.Uint64()), p.blocks
		}
		left--
		return pass.At(p.blocks - 1 - left)
	}
}

// direction says whether the next request reads or writes.
func (p *picker) direction() int {
	switch {
	case !p.job.Write:
		return reading
	case !p.job.Read:
		return writing
	case p.rng.IntN(100) < p.job.ReadShare:
		return reading
	}
	return writing
}

// block returns the place of the next request in a direction, in bytes.
func (p *picker) block(direction int) (off, length int64) {
	length = p.length(p.job.Block[direction])
	if p.job.Random {
		off = p.first + int64(p.order())*p.unit
	} else {
		off = p.next[direction]
	}
	if off+length > p.job.Size {
		if off = p.first; p.job.Random {
			off = p.first + (p.job.Size-length-p.first)/p.unit*p.unit
		}
	}
	if p.segment > 0 {
		if end := (off/p.segment + 1) * p.segment; off+length > end {
			off = end - length
		}
	}
	p.next[direction] = off + length
	return off, length
}

// length draws a size from a range, in whole units.
func (p *picker) length(r Range) int64 {
	if r.Least == r.Most {
		return r.Least
	}
	return min(r.Least+p.rng.Int64N((r.Most-r.Least)/p.unit+1)*p.unit, r.Most)
}
