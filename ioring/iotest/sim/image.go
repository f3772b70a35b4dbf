package sim

import (
	"maps"
	"slices"
)

// Image is what is on a disk without power.
type Image struct {
	segments map[int64]*segment
	kept     []*segment // that were discarded
	metas    map[string][]byte
	harmed   bool // something in it is not what was stored
}

// cut ends the power. What was not durable gets its fate: each write, finished or
// not, is there whole, in part or not at all; each new segment has its name or
// not; each discarded one is gone or back.
func (d *Disk) cut(seed uint64) {
	d.image = d.leave(seed)
	d.dead = ErrPowerCut
}

// Cut ends the power now.
func (d *Disk) Cut(seed uint64) {
	if d.dead == nil {
		d.hit(PowerCut)
		d.cut(seed)
	}
}

// Image is what the power cut has left. Without one it is everything that is
// there, as for who opens it again in the same system.
func (d *Disk) Image() *Image {
	if d.image == nil {
		for _, w := range d.unsynced {
			d.persist(w)
		}
		d.dirSynced()
		d.unsynced = nil
		d.image = d.leave(0)
	}
	return d.image
}

// Boot returns a disk with the content of an image, which is used up by that.
func Boot(w *World, opt DiskOptions, image *Image) (*Disk, error) {
	return newDisk(w, opt, image)
}

func (d *Disk) leave(seed uint64) *Image {
	rng := draw(seed)
	keep, tear := rng.Float64(), rng.Float64()
	switch rng.IntN(4) {
	case 0:
		keep, tear = 0, 0 // as hard as it can be
	case 1:
		keep = 1 // the process was killed, the system goes on
	}
	image := &Image{segments: map[int64]*segment{}, metas: maps.Clone(d.metas), harmed: d.Harmed()}
	for _, index := range slices.Sorted(maps.Keys(d.segments)) {
		if s := d.segments[index]; s.named || rng.Float64() < keep {
			image.place(index, s.durable)
		}
	}
	back := d.leaveGhosts(rng, keep, image)
	fates := slices.Clone(d.unsynced)
	for _, w := range d.waiting() {
		if index := w.off / d.opt.SegmentSize; image.segments[index] == nil && d.segments[index] == nil && rng.Float64() < keep {
			image.place(index, make([]byte, d.opt.SegmentSize))
		}
		fates = append(fates, w)
	}
	if rng.IntN(2) == 0 {
		rng.Shuffle(len(fates), func(i, j int) { fates[i], fates[j] = fates[j], fates[i] })
	}
	for _, w := range fates {
		whole, part := rng.Float64() < keep, rng.Float64() < tear
		index := w.off / d.opt.SegmentSize
		if old, ok := back[index]; ok {
			index = old // it has its old name back, and what was written to it
		}
		s := image.segments[index]
		if s == nil || !whole && !part {
			continue
		}
		for at := 0; at < len(w.data); at += sector {
			if whole || rng.IntN(2) == 0 {
				copy(s.durable[w.off%d.opt.SegmentSize+int64(at):], w.data[at:min(at+sector, len(w.data))])
			}
		}
	}
	for _, s := range image.segments {
		s.live = slices.Clone(s.durable)
	}
	return image
}

// waiting lists the writes under way that have not taken effect, by address.
func (d *Disk) waiting() []*write {
	known := make(map[*write]bool, len(d.unsynced))
	for _, w := range d.unsynced {
		known[w] = true
	}
	var list []*write
	for _, w := range d.inFlight {
		if !known[w] && w.answer == 0 {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b *write) int { return int(a.off - b.off) })
	return list
}

func (m *Image) place(index int64, data []byte) {
	m.segments[index] = &segment{durable: slices.Clone(data), named: true, was: none}
}
