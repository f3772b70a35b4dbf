package sim

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// FaultKind says what goes wrong.
type FaultKind uint8

// The kinds of faults. What a kind counts is in the table below.
const (
	// ReadError fails a read; the one after it may succeed.
	ReadError FaultKind = iota
	// ReadFlip turns a bit of what a read brings.
	ReadFlip
	// ReadElsewhere has a read bring the bytes of another place.
	ReadElsewhere
	// WriteError fails a write, of which any sectors may be there.
	WriteError
	// WriteShort fails a write of which the beginning is there.
	WriteShort
	// WriteLost has a write succeed that never took place.
	WriteLost
	// WriteElsewhere has a write succeed that went to another place.
	WriteElsewhere
	// SyncError fails a sync, finally. What it should have covered may be gone.
	SyncError
	// SyncLost has a sync succeed that did nothing.
	SyncLost
	// MetaError fails a change of metadata.
	MetaError
	// MetaFull fails a change of metadata for want of room.
	MetaFull
	// Full leaves no room for new segments for a while.
	Full
	// Slow makes everything a thousand times slower for a while.
	Slow
	// Rot changes bytes of the log at rest.
	Rot
	// MetaRot changes a byte of a metadata file at rest.
	MetaRot
	// PowerCut ends the life of the disk: see Disk.Image.
	PowerCut
	faultKinds
)

// counted is what the faults of a kind are numbered by.
type counted uint8

const (
	reads counted = iota
	writes
	syncs
	metas
	changes // everything that changes the disk
	countedKinds
)

var faultTable = [faultKinds]struct {
	name  string
	of    counted
	harms bool // what was stored is not what will be read
}{
	ReadError:      {"read-error", reads, false},
	ReadFlip:       {"read-flip", reads, true},
	ReadElsewhere:  {"read-elsewhere", reads, true},
	WriteError:     {"write-error", writes, false},
	WriteShort:     {"write-short", writes, false},
	WriteLost:      {"write-lost", writes, true},
	WriteElsewhere: {"write-elsewhere", writes, true},
	SyncError:      {"sync-error", syncs, false},
	SyncLost:       {"sync-lost", syncs, true},
	MetaError:      {"meta-error", metas, false},
	MetaFull:       {"meta-full", metas, false},
	Full:           {"full", changes, false},
	Slow:           {"slow", changes, false},
	Rot:            {"rot", changes, true},
	MetaRot:        {"meta-rot", changes, true},
	PowerCut:       {"power-cut", changes, false},
}

func (k FaultKind) String() string { return faultTable[k].name }

// Harms reports whether the disk answers, or will, other than what was stored:
// no store can do more then than to notice.
func (k FaultKind) Harms() bool { return faultTable[k].harms }

// Faults lists all kinds.
func Faults() []FaultKind {
	list := make([]FaultKind, faultKinds)
	for i := range list {
		list[i] = FaultKind(i)
	}
	return list
}

// Fault is one thing that goes wrong: with the At-th operation that its kind
// counts, from 1, since the disk began.
type Fault struct {
	Kind FaultKind
	At   int
	Arg  uint64 // draws the details
}

// String is the fault as ParseFault reads it.
func (f Fault) String() string { return fmt.Sprintf("%v@%d:%x", f.Kind, f.At, f.Arg) }

// ParseFault reads what String has written.
func ParseFault(text string) (f Fault, err error) {
	name, rest, ok := strings.Cut(text, "@")
	at, arg, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 {
		return f, fmt.Errorf("fault %q: want kind@number:argument", text)
	}
	f.Kind = faultKinds
	for k := range faultKinds {
		if faultTable[k].name == name {
			f.Kind = k
		}
	}
	if f.Kind == faultKinds {
		return f, fmt.Errorf("fault %q: there is no kind %q", text, name)
	}
	if f.At, err = strconv.Atoi(at); err != nil {
		return f, fmt.Errorf("fault %q: %w", text, err)
	}
	if f.Arg, err = strconv.ParseUint(arg, 16, 64); err != nil {
		return f, fmt.Errorf("fault %q: %w", text, err)
	}
	return f, nil
}

const (
	// fullMax and slowMax bound how long a full or slow disk stays so.
	fullMax = 3 * time.Second
	slowMax = 200 * time.Millisecond
)

// strike counts an operation and returns the fault that is meant for it, if any.
func (d *Disk) strike(c counted) *Fault {
	d.count[c]++
	for i := range d.opt.Faults {
		f := &d.opt.Faults[i]
		if f.At == d.count[c] && faultTable[f.Kind].of == c && d.dead == nil {
			d.hit(f.Kind)
			return f
		}
	}
	return nil
}

// hit notes that a fault has struck.
func (d *Disk) hit(k FaultKind) {
	d.hits[k]++
	d.w.note("fault", k.String(), 0, 0)
}

// changing is called before everything that changes the disk: faults that happen
// by themselves strike here. It returns ErrPowerCut if that was the end.
func (d *Disk) changing() error {
	if d.dead != nil {
		return d.dead
	}
	for f := d.strike(changes); f != nil; f = nil {
		rng := draw(f.Arg)
		switch f.Kind {
		case PowerCut:
			d.cut(rng.Uint64())
			return d.dead
		case Full:
			d.full = true
			d.w.after(rng.Int64N(int64(fullMax)), "room", func() { d.full = false })
		case Slow:
			d.slow = true
			d.w.after(rng.Int64N(int64(slowMax)), "fast", func() { d.slow = false })
		case Rot:
			d.rot(rng)
		case MetaRot:
			d.rotMeta(rng)
		}
	}
	return nil
}
