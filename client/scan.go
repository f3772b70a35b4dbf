package client

import (
	"context"
	"fmt"
	"iter"

	"rskv/ipc"
)

// ScanOptions of Client.Scan and ScanPage.
type ScanOptions struct {
	// Prefix is what keys begin with. A daemon without the ordered index reads its whole log all the same.
	Prefix   []byte
	KeysOnly bool // leave the values out: they are nil
	// From is the lowest key that is wanted, To the lowest above them; nil: no such bound. Reverse begins
	// at the highest. They need a daemon with the ordered index (setting ordered), else: ErrBadRequest.
	From, To []byte
	Reverse  bool
	// Count is how many entries are asked for at a time, 1 to the daemon's limit of keys in one request;
	// 0 is scanCount for Scan, and the daemon's own number for ScanPage.
	Count int
}

// scanCount is how many entries Scan asks for at a time: of small ones it makes a page of some 100 KiB.
const scanCount = 1000

// Scan returns all keys with their values, page by page as they are taken. Every key that is there from
// the beginning of the loop to its end appears exactly once; others once or not at all. With the daemon's
// ordered index they come in their order, compared byte by byte, else in no order. The memory of a pair is
// the caller's; an empty value is not nil. An error comes as the last, with an empty pair: ErrCursorLost
// says that the loop took so long between two pages that the daemon could not wait for it, and has to
// begin anew.
func (c *Client) Scan(ctx context.Context, opt ScanOptions) iter.Seq2[Pair, error] {
	if opt.Count == 0 {
		opt.Count = scanCount
	}
	return func(yield func(Pair, error) bool) {
		for cursor := []byte(nil); ; {
			pairs, next, err := c.ScanPage(ctx, opt, cursor)
			if err != nil {
				yield(Pair{}, err)
				return
			}
			for _, p := range pairs {
				if !yield(p, nil) {
					return
				}
			}
			if cursor = next; cursor == nil {
				return
			}
		}
	}
}

// ScanPage returns one page of a scan: the first if cursor is nil, else the one behind that which came
// with the cursor, and the cursor for the next, nil at the end. A page may be empty and not the last.
func (c *Client) ScanPage(ctx context.Context, opt ScanOptions, cursor []byte) (pairs []Pair, next []byte, err error) {
	f := takeFlight()
	start := f.begin(ipc.MethodScan, 1)
	n := 1
	for _, given := range []bool{len(opt.Prefix) > 0, cursor != nil, opt.Count != 0, opt.From != nil, opt.To != nil, opt.Reverse} {
		if given {
			n++
		}
	}
	f.buf = ipc.AppendBool(ipc.AppendStr(ipc.AppendMapHeader(f.buf, n), "keys"), opt.KeysOnly)
	if len(opt.Prefix) > 0 {
		f.buf = ipc.AppendBin(ipc.AppendStr(f.buf, "prefix"), opt.Prefix)
	}
	if cursor != nil {
		f.buf = ipc.AppendBin(ipc.AppendStr(f.buf, "cursor"), cursor)
	}
	if opt.Count != 0 {
		f.buf = ipc.AppendInt(ipc.AppendStr(f.buf, "count"), int64(opt.Count))
	}
	if opt.From != nil {
		f.buf = ipc.AppendBin(ipc.AppendStr(f.buf, "from"), opt.From)
	}
	if opt.To != nil {
		f.buf = ipc.AppendBin(ipc.AppendStr(f.buf, "to"), opt.To)
	}
	if opt.Reverse {
		f.buf = ipc.AppendBool(ipc.AppendStr(f.buf, "reverse"), true)
	}
	if err := f.endChecked(start, natureRead); err != nil {
		f.release()
		return nil, nil, err
	}
	if err := c.fly(ctx, f); err != nil {
		return nil, nil, err
	}
	r, err := f.raw(0, ipc.KindArray)
	if err != nil {
		f.release()
		return nil, nil, err
	}
	f.arena = nil // the pairs alias it
	f.release()
	if pairs, next, err = readPage(&r, opt.KeysOnly); err != nil {
		return nil, nil, fmt.Errorf("%w: page of a scan: %w", ErrProtocol, err)
	}
	return pairs, next, nil
}

// readPage takes the result of a scan.
func readPage(r *ipc.Reader, keysOnly bool) (pairs []Pair, next []byte, err error) {
	if n, err := r.ArrayLen(); err != nil || n != 2 {
		return nil, nil, fmt.Errorf("%d elements: %w", n, ErrProtocol)
	}
	if !r.TakeNil() {
		if next, err = r.Bytes(); err != nil {
			return nil, nil, err
		}
	}
	n, err := r.ArrayLen()
	if err != nil {
		return nil, nil, err
	}
	pairs = make([]Pair, n)
	for i := range pairs {
		if !keysOnly {
			if two, err := r.ArrayLen(); err != nil || two != 2 {
				return nil, nil, fmt.Errorf("pair of %d: %w", two, ErrProtocol)
			}
		}
		if pairs[i].Key, err = r.Bytes(); err != nil {
			return nil, nil, err
		}
		if keysOnly {
			continue
		}
		if pairs[i].Value, err = r.Bytes(); err != nil {
			return nil, nil, err
		}
	}
	return pairs, next, nil
}
