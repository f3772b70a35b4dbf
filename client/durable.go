package client

import (
	"fmt"

	"rskv/ipc"
)

// ownSync is the number in the slot of a sync that the client asked for itself.
const ownSync = 1<<64 - 1

// askSyncLocked asks for a sync if kept writes pile up and none is under way.
func (c *Client) askSyncLocked() {
	g := &c.mu.gate
	if c.opt.session && (g.blocked() || g.kept.over(g.maxKept.half())) {
		c.syncLocked()
	}
}

func (c *Client) syncLocked() {
	if c.mu.syncing || !c.mu.up {
		return
	}
	c.recallLocked()
	c.mu.syncing, c.mu.syncUpTo = true, c.mu.kept.next-1
	id := c.takeSlotLocked(nil, 0)
	c.mu.slots[id].number = ownSync
	begin := len(c.mu.out)
	c.mu.out = ipc.AppendRequestHeader(c.mu.out, id, ipc.MethodSync, 0)
	c.mu.queued += uint64(len(c.mu.out) - begin)
	c.wakeFlusher()
}

// syncedLocked takes the answer to the client's own sync. Callers that wait for room fail if it
// brought none.
func (c *Client) syncedLocked(p *ipc.Response) error {
	c.mu.syncing = false
	err := p.Err()
	if err == nil {
		if err := c.tookDurableLocked(p); err != nil {
			return err
		}
		if c.mu.durable < c.mu.syncUpTo {
			err = fmt.Errorf("%w: synced up to write %d of %d", ErrProtocol, c.mu.durable, c.mu.syncUpTo)
		}
	}
	if err != nil {
		c.mu.gate.turnAway(fmt.Errorf("make room for the write: sync: %w", err))
	}
	return nil
}

// tookDurableLocked takes a map that tells how far the session is durable.
func (c *Client) tookDurableLocked(p *ipc.Response) error {
	r := p.Result
	n, err := r.MapLen()
	if err != nil {
		return nil // not what was asked for, which the caller will see
	}
	for range n {
		name, err := r.Bytes()
		if err != nil {
			return nil
		}
		if string(name) != "durable" {
			if r.Skip() != nil {
				return nil
			}
			continue
		}
		number, err := r.Uint()
		if err != nil {
			return nil
		}
		return c.durableLocked(number)
	}
	return nil
}

// notified takes a notification; the only one that means something tells how far the session is
// durable.
func (c *Client) notified(p *ipc.Response) error {
	if !c.opt.session || string(p.Method) != ipc.NotifyDurable {
		return nil
	}
	r := p.Result
	n, err := r.ArrayLen()
	if err != nil || n != 1 {
		return fmt.Errorf("%w: durable has %d parameters", ErrProtocol, n)
	}
	number, err := r.Uint()
	if err != nil {
		return fmt.Errorf("%w: durable is no number", ErrProtocol)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.durableLocked(number)
}

// durableLocked forgets the writes up to number.
func (c *Client) durableLocked(number uint64) error {
	if number >= c.mu.kept.next {
		return fmt.Errorf("%w: write %d is durable, %d were made", ErrProtocol, number, c.mu.kept.next-1)
	}
	if number <= c.mu.durable {
		return nil // an older one that was overtaken
	}
	c.mu.durable = number
	c.mu.gate.forget(c.mu.kept.trim(number))
	c.askSyncLocked()
	return nil
}

// refusedLocked notes that the write in slot s, which is free already, was answered with an error.
// If it had been answered with success before, and was undone by a crash, that is a loss.
func (c *Client) refusedLocked(s *slot, p *ipc.Response) {
	if s.f == nil && c.mu.kept.fates[s.number] == 0 {
		c.ends.losses = append(c.ends.losses, SessionLoss{Session: c.mu.hello.Session, Unconfirmed: 1, Err: p.Err()})
	}
	c.mu.kept.mark(s.number, fateVoid)
}
