package index

import (
	"sync/atomic"

	"rskv/engine/internal/record"
)

// Sweep removes the entries of rows [row, row+n) whose chains end below an
// address from which on the log counts: nothing can be found under them any more.
// It returns the row to go on at, 0 at the end of the table, and how many entries
// it has removed.
//
// A free word is what those look for who create entries, and an entry is removed
// by a swap of exactly the word read, so it is either gone, and whoever wanted to
// change it looks again, or has got a new record, and stays. Others may still act
// on that they have seen the chain: the caller sees to it that every section that
// began when it still counted has ended.
func (x *Index) Sweep(row, n uint64, below record.Addr) (next uint64, removed int) {
	end := row + n
	for ; row < min(end, x.rows()); row++ {
		for b := x.row(row); b != nil; b = x.next(b) {
			for i := range bucketEntries {
				e := atomic.LoadUint64(&b[i])
				if e == 0 || e&(tentative|moving) != 0 || Address(e) >= below {
					continue
				}
				if atomic.CompareAndSwapUint64(&b[i], e, 0) {
					removed++
				}
			}
		}
	}
	if row >= x.rows() {
		return 0, removed
	}
	return row, removed
}
