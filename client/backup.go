package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"rskv/ipc"
)

// Backup is a backup that was written and verified.
type Backup struct {
	StoreID [16]byte
	Version uint64    // of the checkpoint it holds
	Time    time.Time // when that was taken, to the millisecond
	Keys    int64
	Bytes   int64    // of the stream
	SHA256  [32]byte // of the stream without its last ipc.BackupTail bytes, which hold it
}

// ErrBackup says that what came is not what the daemon has sent.
var ErrBackup = errors.New("backup is damaged")

const (
	// backupAhead is how many pieces are asked for ahead: while one is written here, the daemon reads
	// the next.
	backupAhead = 3
	// backupCloseWait is how long a backup that failed waits for the daemon to give it up. It does so
	// by itself, later.
	backupCloseWait = time.Second
)

// Backup writes a consistent copy of the whole store, as of a checkpoint that is taken first, to w.
// Others go on working. progress, if not nil, is told how many bytes have been written, of how many.
// The digest of what was written is compared with the daemon's: without an error the backup is whole.
// With one, what w has is useless. It is for administrators; one Client has one backup at a time, and
// it does not survive a lost connection (ErrConnLost).
func (c *Client) Backup(ctx context.Context, w io.Writer, progress func(done, total int64)) (Backup, error) {
	b, err := c.backup(ctx, w, progress)
	if err != nil {
		return Backup{}, fmt.Errorf("backup: %w", err)
	}
	return b, nil
}

func (c *Client) backup(ctx context.Context, w io.Writer, progress func(done, total int64)) (Backup, error) {
	total, piece, err := c.openBackup(ctx)
	if err != nil {
		if ctx.Err() != nil {
			c.dropBackup(ctx)
		}
		return Backup{}, err
	}
	sum := sha256.New()
	if err := c.readBackup(ctx, &digest{w: w, sum: sum, left: total - ipc.BackupTail}, total, piece, progress); err != nil {
		c.dropBackup(ctx)
		return Backup{}, err
	}
	return c.closeBackup(ctx, total, sum)
}

// dropBackup tells the daemon, which would keep the backup until it times out, that it failed here.
func (c *Client) dropBackup(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), backupCloseWait)
	defer cancel()
	_, _ = c.flyBackup(ctx, ipc.ActionClose)
}

// flyBackup asks for a step of a backup that has no parameter and is answered with a map or nil.
func (c *Client) flyBackup(ctx context.Context, a ipc.Action) (map[string]any, error) {
	f := takeFlight()
	start := f.begin(ipc.MethodBackup, 1)
	f.buf = ipc.AppendStr(f.buf, a.String())
	f.end(start, natureOnce)
	return c.flyMap(ctx, f)
}

func (c *Client) openBackup(ctx context.Context) (total, piece int64, err error) {
	m, err := c.flyBackup(ctx, ipc.ActionOpen)
	if err != nil {
		return 0, 0, err
	}
	total, piece = int64(number(m, "bytes")), int64(number(m, "piece"))
	if total <= ipc.BackupTail || piece <= 0 || piece > ipc.MaxBackupPiece {
		return 0, 0, fmt.Errorf("%w: %d bytes in pieces of %d", ErrProtocol, total, piece)
	}
	return total, piece, nil
}

// readBackup writes the pieces to w, with some of them asked for ahead.
func (c *Client) readBackup(ctx context.Context, w io.Writer, total, piece int64, progress func(done, total int64)) error {
	var ahead []*Future[[]byte]
	asked := int64(0)
	for done := int64(0); done < total; {
		for ; asked < total && len(ahead) < backupAhead; asked += piece {
			f := takeFlight()
			start := f.begin(ipc.MethodBackup, 2)
			f.buf = ipc.AppendUint(ipc.AppendStr(f.buf, ipc.ActionRead.String()), uint64(asked))
			f.end(start, natureOnce)
			ahead = append(ahead, send(ctx, c, f, nil, readPiece))
		}
		b, err := ahead[0].Wait(ctx)
		ahead = ahead[1:]
		if err == nil && int64(len(b)) != min(piece, total-done) {
			err = fmt.Errorf("%w: %d bytes at %d of %d", ErrProtocol, len(b), done, total)
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		done += int64(len(b))
		if progress != nil {
			progress(done, total)
		}
	}
	return nil
}

// readPiece is readValue without a copy: the arena goes with the piece.
func readPiece(f *flight) ([]byte, error) {
	v, err := f.bytes(0)
	f.arena = nil
	return v, err
}

// closeBackup compares what the daemon has sent with what was written.
func (c *Client) closeBackup(ctx context.Context, total int64, sum hash.Hash) (Backup, error) {
	m, err := c.flyBackup(ctx, ipc.ActionClose)
	if err != nil {
		return Backup{}, err
	}
	b := Backup{
		Version: number(m, "version"), Time: time.UnixMilli(int64(number(m, "time"))),
		Keys: int64(number(m, "keys")), Bytes: int64(number(m, "bytes")),
	}
	store, _ := m["store"].([]byte)
	copy(b.StoreID[:], store)
	theirs, _ := m["sha256"].([]byte)
	sum.Sum(b.SHA256[:0])
	if !bytes.Equal(theirs, b.SHA256[:]) || b.Bytes != total {
		return Backup{}, fmt.Errorf("%w: %d bytes with SHA-256 %x, sent were %d with %x", ErrBackup, total, b.SHA256, b.Bytes, theirs)
	}
	return b, nil
}

// digest writes and counts what it has written into a digest, but for the end.
type digest struct {
	w    io.Writer
	sum  hash.Hash
	left int64 // bytes that the digest is about
}

func (d *digest) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	part := p[:min(int64(n), d.left)]
	d.sum.Write(part)
	d.left -= int64(len(part))
	return n, err
}
