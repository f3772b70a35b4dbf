package sim

import (
	"maps"
	"math/rand/v2"
	"slices"
)

// Reserve implements ioring.Device.
func (d *Disk) Reserve(segments int) {
	d.wanted = segments
	for d.sparesAll() < segments && d.free() {
		d.spares++
	}
	d.short = d.sparesAll() < segments
	d.w.note("reserve", "", uint64(segments), uint64(d.sparesAll()))
}

// Recycle implements ioring.Device.
func (d *Disk) Recycle(segments int) {
	d.recycle = segments
	d.w.note("recycle", "", uint64(segments), uint64(d.sparesAll()))
	for d.sparesAll() > d.wanted+segments {
		if d.spares > 0 {
			d.spares--
		} else {
			d.kept = d.kept[1:]
		}
	}
}

// Room implements ioring.Device.
func (d *Disk) Room() (reserved int, full bool) { return d.sparesAll(), d.short }

func (d *Disk) sparesAll() int { return d.spares + len(d.kept) }

func (d *Disk) free() bool {
	return !d.full && (d.opt.Room == 0 || len(d.segments)+d.sparesAll() < d.opt.Room)
}

// makeRoom reports whether a segment is there or can be made.
func (d *Disk) makeRoom(index int64) bool {
	return d.segments[index] != nil || d.sparesAll() > 0 || d.free()
}

// newSegment makes a segment, of a discarded one if there is one, else from the
// reserve.
func (d *Disk) newSegment() *segment {
	if n := len(d.kept); n > 0 {
		k := d.kept[n-1]
		d.kept = d.kept[:n-1]
		d.counters.Recycled++
		// A power cut may give it its old name back: then the content is the new one's.
		return &segment{live: slices.Clone(k.durable), durable: k.durable, was: k.was}
	}
	d.spares = max(d.spares-1, 0)
	size := d.opt.SegmentSize
	return &segment{live: make([]byte, size), durable: make([]byte, size), was: none}
}

// keep keeps a discarded segment if one more may be kept and all of it is durable.
func (d *Disk) keep(index int64, s *segment) {
	written := func(w *write) bool { return w.off/d.opt.SegmentSize == index }
	if s.named && d.sparesAll() < d.wanted+d.recycle && !slices.ContainsFunc(d.unsynced, written) {
		d.kept = append(d.kept, &segment{durable: s.durable, was: index})
	}
}

// leaveGhosts brings discarded segments back into an image. One that has become
// another segment meanwhile is there under one of its names at most; back says
// which have their old one.
func (d *Disk) leaveGhosts(rng *rand.Rand, keep float64, image *Image) (back map[int64]int64) {
	became := make(map[int64]int64)
	for index, s := range d.segments {
		if s.was != none {
			became[s.was] = index
		}
	}
	back = make(map[int64]int64)
	for _, index := range slices.Sorted(maps.Keys(d.ghosts)) {
		now, changed := became[index]
		if changed && image.segments[now] != nil || rng.Float64() >= keep || image.segments[index] != nil {
			continue
		}
		image.place(index, d.ghosts[index].durable)
		if changed {
			back[now] = index
		}
	}
	for _, k := range d.kept {
		if image.segments[k.was] == nil {
			image.kept = append(image.kept, &segment{durable: slices.Clone(k.durable), was: k.was})
		}
	}
	return back
}
