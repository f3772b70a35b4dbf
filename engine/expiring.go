package engine

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"sort"
	"sync"
	"time"

	"rskv/engine/internal/record"
)

// expiring is how much log will have expired when: the bytes of all records with
// an expiry, and of their chunks, from the log's begin to its tail, whether they
// are the newest of their key or not. What has expired is dead, wherever it is, so
// it bounds from above what can be live. Like all such counts it is an estimate.
//
//	past |  a minute each  |   an hour each   |   a day each ...
//	-----+-----+-----+-----+--------+---------+------------
//	     ^ now             ^ 2 hours from now ^ 5 days from now
//
// A checkpoint holds it as it was when its snapshot began; what comes behind is
// counted by the replay.
type expiring struct {
	mu    sync.Mutex
	spans []expirySpan // in order, without overlap; guarded by mu
}

// expirySpan is the bytes that expire in [from, until), ms since 1970.
type expirySpan struct{ from, until, bytes int64 }

// expiringSteps is how fine spans are, by how far away they are, in ms.
var expiringSteps = [...]struct{ within, step int64 }{
	{2 * hourMS, hourMS / 60},
	{120 * hourMS, hourMS},
	{8760 * hourMS, 24 * hourMS},
	{MaxTTL, 720 * hourMS},
}

const (
	hourMS = int64(time.Hour / time.Millisecond)
	// expiringMax bounds the spans: then those that are furthest away become one.
	expiringMax = 1024
)

// expiryNote is a record of so many bytes that has come, or, with less than 0,
// gone.
type expiryNote struct {
	addr   record.Addr
	expiry int64 // ms since 1970
	bytes  int64
	timer  bool // a timer is to be set for it
}

// add counts records.
func (x *expiring) add(notes []expiryNote, now int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range notes {
		if n := &notes[i]; n.bytes != 0 {
			x.addLocked(n.expiry, n.bytes, now)
		}
	}
}

func (x *expiring) addLocked(expiry, bytes, now int64) {
	i, found := findRange(x.spans, expiry, func(s *expirySpan) (from, until int64) { return s.from, s.until })
	if found {
		x.spans[i].bytes += bytes
		return
	}
	step := int64(1)
	for _, s := range expiringSteps {
		if step = s.step; expiry-now < s.within {
			break
		}
	}
	s := expirySpan{expiry - expiry%step, expiry - expiry%step + step, bytes}
	if i > 0 {
		s.from = max(s.from, x.spans[i-1].until)
	}
	if i < len(x.spans) {
		s.until = min(s.until, x.spans[i].from)
	}
	x.spans = slices.Insert(x.spans, i, s)
	x.foldLocked(now)
}

// foldLocked makes one of the spans that have passed, and keeps their number in
// bounds.
func (x *expiring) foldLocked(now int64) {
	n := 0
	for n < len(x.spans) && x.spans[n].until <= now {
		n++
	}
	if n > 1 {
		x.mergeLocked(0, n)
	}
	if n := len(x.spans); n > expiringMax {
		x.mergeLocked(n-2, n)
	}
}

// mergeLocked makes one of the spans [i, j).
func (x *expiring) mergeLocked(i, j int) {
	for _, s := range x.spans[i+1 : j] {
		x.spans[i].until = s.until
		x.spans[i].bytes += s.bytes
	}
	x.spans = slices.Delete(x.spans, i+1, j)
}

// sum returns how many bytes have expired, and how many will.
func (x *expiring) sum(now int64) (expired, ahead int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.spans {
		bytes := max(s.bytes, 0)
		switch {
		case s.until <= now:
			expired += bytes
		case s.from >= now:
			ahead += bytes
		default:
			part := int64(float64(bytes) * float64(now-s.from) / float64(s.until-s.from))
			expired += part
			ahead += bytes - part
		}
	}
	return expired, ahead
}

// forget drops what had expired before a time: passes have gone over the whole log
// since, and nothing of it is left.
func (x *expiring) forget(before int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.spans = slices.DeleteFunc(x.spans, func(s expirySpan) bool { return s.until <= before })
}

// append writes the spans as a checkpoint holds them.
func (x *expiring) append(b []byte) []byte {
	x.mu.Lock()
	defer x.mu.Unlock()
	b = binary.LittleEndian.AppendUint32(b, uint32(len(x.spans)))
	for _, s := range x.spans {
		for _, v := range []int64{s.from, s.until, s.bytes} {
			b = binary.LittleEndian.AppendUint64(b, uint64(v))
		}
	}
	return b
}

// restore takes over spans that append has written, and returns what follows them.
func (x *expiring) restore(b []byte) (rest []byte, err error) {
	list, rest, err := threes(b)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.spans = nil
	for _, v := range list {
		s := expirySpan{v[0], v[1], v[2]}
		if n := len(x.spans); s.from >= s.until || n > 0 && s.from < x.spans[n-1].until {
			return nil, errExpiry
		}
		x.spans = append(x.spans, s)
	}
	return rest, nil
}

var errExpiry = errors.New("table of expiry is inconsistent")

// threes reads a number and as many triples of numbers.
func threes(b []byte) (list [][3]int64, rest []byte, err error) {
	le := binary.LittleEndian
	if len(b) < 4 || uint64(len(b)-4) < 24*uint64(le.Uint32(b)) {
		return nil, nil, errExpiry
	}
	n := int(le.Uint32(b))
	for b = b[4:]; n > 0; n-- {
		list = append(list, [3]int64{int64(le.Uint64(b)), int64(le.Uint64(b[8:])), int64(le.Uint64(b[16:]))})
		b = b[24:]
	}
	return list, b, nil
}

// sweptPast remembers of the log that has left memory up to which expiry its keys
// had been swept by then, see sweeper.go. What is not in it was never swept.
type sweptPast struct {
	mu     sync.Mutex
	ranges []sweptRange // in order, without overlap; guarded by mu
}

// sweptRange: records in [from, until) that had expired by swept, ms since 1970,
// are not counted.
type sweptRange struct {
	from, until record.Addr
	swept       int64
}

// sweptRangesMax bounds the ranges: then the two that differ least become one,
// with the earlier time of the two.
const sweptRangesMax = 256

// set notes that the records of a range had been swept up to a time.
func (p *sweptPast) set(from, until record.Addr, swept int64) {
	if from >= until {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var kept []sweptRange
	for _, r := range p.ranges {
		if r.from < from {
			kept = append(kept, sweptRange{r.from, min(r.until, from), r.swept})
		}
	}
	kept = append(kept, sweptRange{from, until, swept})
	for _, r := range p.ranges {
		if r.until > until {
			kept = append(kept, sweptRange{max(r.from, until), r.until, r.swept})
		}
	}
	for len(kept) > sweptRangesMax {
		apart := func(i int) int64 { return max(kept[i].swept, kept[i+1].swept) - min(kept[i].swept, kept[i+1].swept) }
		least := 0
		for i := range len(kept) - 1 {
			if apart(i) < apart(least) {
				least = i
			}
		}
		kept[least].until, kept[least].swept = kept[least+1].until, min(kept[least].swept, kept[least+1].swept)
		kept = slices.Delete(kept, least+1, least+2)
	}
	p.ranges = kept
}

// at is up to which expiry records at a had been swept, 0 if they were not.
func (p *sweptPast) at(a record.Addr) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	i, found := findRange(p.ranges, a, func(r *sweptRange) (from, until record.Addr) { return r.from, r.until })
	if !found {
		return 0
	}
	return p.ranges[i].swept
}

// append writes the ranges from an address on as a checkpoint holds them.
func (p *sweptPast) append(b []byte, from record.Addr) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := slices.DeleteFunc(slices.Clone(p.ranges), func(r sweptRange) bool { return r.until <= from })
	b = binary.LittleEndian.AppendUint32(b, uint32(len(list)))
	for _, r := range list {
		for _, v := range []uint64{uint64(r.from), uint64(r.until), uint64(r.swept)} {
			b = binary.LittleEndian.AppendUint64(b, v)
		}
	}
	return b
}

// restore takes over ranges that append has written.
func (p *sweptPast) restore(b []byte) error {
	list, rest, err := threes(b)
	if err != nil || len(rest) != 0 {
		return errExpiry
	}
	p.mu.Lock()
	p.ranges = nil
	p.mu.Unlock()
	for _, v := range list {
		p.set(record.Addr(v[0]), record.Addr(v[1]), v[2])
	}
	return nil
}

// findRange finds which of some ranges, in order and apart, x lies in; if it lies in
// none, before which it would.
func findRange[R any, T cmp.Ordered](ranges []R, x T, bounds func(*R) (from, until T)) (i int, found bool) {
	i = sort.Search(len(ranges), func(i int) bool {
		_, until := bounds(&ranges[i])
		return x < until
	})
	if i == len(ranges) {
		return i, false
	}
	from, _ := bounds(&ranges[i])
	return i, from <= x
}
