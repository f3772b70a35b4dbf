package daemon

import "slices"

// writeLog numbers the writes of a connection in the order received and knows
// up to which number all have taken effect. With a session the numbers are the
// session's. The zero writeLog has seen no write. Guarded by conn.mu.
type writeLog struct {
	last  uint64      // number of the last write received
	given uint64      // number of the last one that was given to the engine
	wait  []openWrite // by ascending numbers; the first is not done
}

// openWrite is a write that was begun and not done when the batch returned, or
// one behind such a one.
type openWrite struct {
	number uint64
	done   bool
}

// next numbers a write.
func (w *writeLog) next() uint64 {
	w.last++
	return w.last
}

// open notes that a write has to wait. Numbers come in ascending order, but for
// those of a batch that is run after an mput or mdel behind it has begun.
func (w *writeLog) open(number uint64) {
	i := len(w.wait)
	for i > 0 && w.wait[i-1].number > number {
		i--
	}
	w.wait = slices.Insert(w.wait, i, openWrite{number: number})
}

// close notes that a write that waited has taken effect, or was refused.
func (w *writeLog) close(number uint64) {
	i, found := slices.BinarySearchFunc(w.wait, number, func(o openWrite, n uint64) int {
		switch {
		case o.number < n:
			return -1
		case o.number > n:
			return 1
		}
		return 0
	})
	if !found {
		return
	}
	w.wait[i].done = true
	if i > 0 {
		return
	}
	n := 1
	for n < len(w.wait) && w.wait[n].done {
		n++
	}
	if w.wait = w.wait[n:]; len(w.wait) == 0 {
		w.wait = nil
	}
}

// applied is the highest number up to which no write is open.
func (w *writeLog) applied() uint64 {
	if len(w.wait) > 0 {
		return w.wait[0].number - 1
	}
	return w.last
}
