package engine

import (
	"errors"
	"fmt"
	"log/slog"

	"rskv/ioring"
)

// passSpace is the memory that passes work with, outside the Go heap, taken from the
// log's as long as there is something to be compacted:
//
//	| pages being judged, then ring of the resolver | suspects                   |
type passSpace struct {
	memory   *ioring.Memory // nil: none
	share    int64          // of the budget it was made for, in bytes
	pages    []byte
	ring     []byte
	suspects suspects
}

const (
	// passShare is the part of the memory budget that passes may take, passMax the
	// most that is of use, in bytes.
	passShare = 8
	passMax   = 256 << 20
	// passReads is the part of it for what is read, passPages the least number of
	// pages, passRing the most for the ring.
	passReads = 3
	passPages = 2
	passRing  = 4 << 20
	// passSuspects is the least memory for suspects.
	passSuspects = 256 << 10
)

// makeSpace takes the memory, unless that is done.
func (c *compactor) makeSpace() error {
	p, page := &c.space, int64(c.store.opt.PageSize)
	share := min(c.store.Memory()/passShare, passMax)
	if p.memory != nil && p.share != share {
		c.letGo() // the budget has been changed
	}
	if p.memory == nil {
		pages := min(max((share/passReads+page-1)/page, passPages), int64(4*len(c.workers)+1)) * page
		ring := min(max(share/passReads, ringMin), passRing) &^ (blockBytes - 1)
		size := max(share, max(pages, ring)+passSuspects) &^ (blockBytes - 1)
		memory, err := ioring.AllocMemory(size)
		if err != nil {
			return fmt.Errorf("memory for compaction: %w", err)
		}
		p.memory, p.share = memory, share
		p.pages, p.ring = memory.Bytes()[:pages], memory.Bytes()[:ring]
		if err := c.store.claimForPasses(size); err != nil {
			return err
		}
	}
	p.suspects.in(p.memory.Bytes()[max(len(p.pages), len(p.ring)):])
	return nil
}

// letGo gives the memory back to the log. No pass is under way.
func (c *compactor) letGo() {
	p := &c.space
	if p.memory == nil {
		return
	}
	err := errors.Join(p.memory.Free(), c.store.claimForPasses(0))
	p.memory = nil
	if err != nil {
		c.store.opt.Logger.Warn("memory of compaction is not given back", slog.Any("error", err))
	}
}
