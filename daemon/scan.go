package daemon

import (
	"bytes"
	"context"
	"sync/atomic"

	"rskv/engine"
	"rskv/ipc"
)

// scansMax is how many pages of scans and exact counts there may be under way at
// a time: each reads the disk and takes some MiB.
const scansMax = 8

// rangesMax is how many pages of scans in order there may be: each is a few reads
// like any other.
const rangesMax = 256

// scanEntryRoom is the most an entry of a page takes beside its key and value.
const scanEntryRoom = 12

var errNoOrder = &ipc.Error{Code: ipc.CodeBadRequest, Message: "scan: from, to and reverse need the ordered index: this daemon runs without the setting ordered"}

var errScansBusy = &ipc.Error{Code: ipc.CodeBusy, Message: "too many scans at a time"}

// scanning does work that takes a while, beside the connection's other requests: so
// many of a kind at a time. The work ends early when the connection does.
func (c *conn) scanning(k call, kind *atomic.Int64, most int64, room int, work func(ctx context.Context) (answer func(), err error)) {
	if kind.Add(1) > most {
		kind.Add(-1)
		c.refuse(&k, errScansBusy)
		return
	}
	c.flight.coming += room
	c.beside(func() func() {
		defer kind.Add(-1)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ended := make(chan struct{})
		defer close(ended)
		go func() {
			select {
			case <-c.halt:
				cancel()
			case <-ended:
			}
		}()
		answer, err := work(ctx)
		return func() {
			c.flight.coming -= room
			if err != nil {
				c.refuse(&k, wireError(err))
				return
			}
			answer()
		}
	})
}

// scan answers with a page of a scan.
func (c *conn) scan(k call) {
	asked := &c.call.Scan
	o := engine.ScanOptions{
		Prefix: bytes.Clone(asked.Prefix), KeysOnly: asked.KeysOnly, Count: asked.Count,
		Bytes: min(engine.ScanBytesDefault, c.limits.Answer/2),
		From:  bytes.Clone(asked.From), To: bytes.Clone(asked.To), Reverse: asked.Reverse,
	}
	if asked.HasCursor {
		o.Cursor = append([]byte{}, asked.Cursor...) // an empty one is refused, not a beginning
	}
	kind, most := &c.server.scans, int64(scansMax)
	switch {
	case c.server.store.Ordered():
		kind, most = &c.server.ranges, rangesMax
	case o.From != nil || o.To != nil || o.Reverse:
		c.refuse(&k, errNoOrder)
		return
	}
	c.scanning(k, kind, most, o.Bytes, func(ctx context.Context) (func(), error) {
		page, err := c.server.store.Scan(ctx, o)
		if err != nil {
			return nil, err
		}
		size := 0
		for _, e := range page.Entries {
			size += len(e.Key) + len(e.Value) + scanEntryRoom
		}
		if size > c.limits.Answer {
			return nil, answerTooLarge(c.limits.Answer)
		}
		text := appendPage(make([]byte, 0, size+len(page.Next)+headRoom), &page, o.KeysOnly)
		return func() {
			if k.answered {
				c.output.ready = append(ipc.AppendResultHeader(c.output.ready, k.id), text...)
			}
		}, nil
	})
}

func appendPage(dst []byte, page *engine.ScanPage, keysOnly bool) []byte {
	dst = ipc.AppendArrayHeader(dst, 2)
	if page.Next == nil {
		dst = ipc.AppendNil(dst)
	} else {
		dst = ipc.AppendBin(dst, page.Next)
	}
	dst = ipc.AppendArrayHeader(dst, len(page.Entries))
	for _, e := range page.Entries {
		if !keysOnly {
			dst = ipc.AppendArrayHeader(dst, 2)
		}
		dst = ipc.AppendBin(dst, e.Key)
		if !keysOnly {
			dst = ipc.AppendBin(dst, e.Value)
		}
	}
	return dst
}

// lengthExact answers with the number of keys, counted.
func (c *conn) lengthExact(k call) {
	c.scanning(k, &c.server.scans, scansMax, 0, func(ctx context.Context) (func(), error) {
		n, err := c.server.store.LenExact(ctx)
		return func() { c.reply(&k, result{resultInt, n.Keys}) }, err
	})
}
