package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"rskv/engine"
	"rskv/ipc"
)

// A backup on its way to a client: the engine pushes, the client pulls.
//
//	engine.Backup --Write--> ready, a piece or two --take--> answers of read
//
// It belongs to one connection and ends with it, when its client closes it, and
// when its client does not read it for backup_timeout.

// backupsMax is how many backups there may be at a time. Each takes some 4 MiB
// and reads the whole disk.
const backupsMax = 4

// backup is one backup. It is its engine's io.Writer.
type backup struct {
	piece  int                // bytes that a read brings; immutable
	idle   time.Duration      // 0: for ever; immutable
	cancel context.CancelFunc // ends the engine's part; immutable

	promised int64 // where the next read has to begin; guarded by conn.mu

	mu      sync.Mutex
	changed sync.Cond // with mu: any of these has changed
	ready   []byte    // written by the engine and not yet taken
	taken   int64     // bytes of the stream before ready
	total   int64     // of the stream; 0 until the engine knows
	whole   bool      // the engine has written everything
	err     error     // why there will be no more
	info    engine.BackupInfo
	waiting int         // requests that wait for the engine
	timer   *time.Timer // runs while none does
}

func newBackup(piece int, idle time.Duration, cancel context.CancelFunc) *backup {
	b := &backup{piece: piece, idle: idle, cancel: cancel}
	b.changed.L = &b.mu
	if idle > 0 {
		b.timer = time.AfterFunc(idle, b.expire)
	}
	return b
}

// Write takes what the engine has written, when there is room for it. Until the
// length is known there always is: whoever asks for it is not reading yet.
func (b *backup) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.err == nil && b.total > 0 && len(b.ready) >= b.piece {
		b.changed.Wait()
	}
	if b.err != nil {
		return 0, b.err
	}
	b.ready = append(b.ready, p...)
	b.changed.Broadcast()
	return len(p), nil
}

// progress is told by the engine how long the stream is.
func (b *backup) progress(_, total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.total == 0 {
		b.total = total
		b.changed.Broadcast()
	}
}

// finished is told by the engine that it has written everything, or why not.
func (b *backup) finished(info engine.BackupInfo, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.info, b.whole = info, err == nil
	if b.err == nil {
		b.err = err
	}
	b.changed.Broadcast()
}

// stop ends the backup; err tells who still waits for it why.
func (b *backup) stop(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopLocked(err)
}

func (b *backup) stopLocked(err error) {
	if b.err == nil {
		b.err = err
	}
	b.ready = nil
	if b.timer != nil {
		b.timer.Stop()
	}
	b.changed.Broadcast()
	b.cancel()
}

// expire ends a backup that nobody reads.
func (b *backup) expire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.waiting == 0 {
		b.stopLocked(&ipc.Error{Code: ipc.CodeBadRequest, Message: fmt.Sprintf("backup: it was not read for %v (backup_timeout)", b.idle)})
	}
}

// await waits for the engine until done, called with mu held, says so, or there
// will be no more. Meanwhile it is not idle. It returns with mu held.
func (b *backup) await(done func() bool) error {
	b.mu.Lock()
	b.waiting++
	if b.timer != nil {
		b.timer.Stop()
	}
	for b.err == nil && !done() {
		b.changed.Wait()
	}
	if b.waiting--; b.waiting == 0 && b.timer != nil && b.err == nil {
		b.timer.Reset(b.idle)
	}
	return b.err
}

// alive reports whether there is a backup, and it has not failed.
func (b *backup) alive() bool {
	if b == nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err == nil
}

// length waits until it is known how long the stream is.
func (b *backup) length() (int64, error) {
	err := b.await(func() bool { return b.total > 0 })
	defer b.mu.Unlock()
	return b.total, err
}

// promise takes up a read at offset; called with conn.mu held.
func (b *backup) promise(offset int64) *ipc.Error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if offset != b.promised || b.total == 0 && b.err == nil {
		return &ipc.Error{Code: ipc.CodeBadRequest, Message: fmt.Sprintf("backup: read at %d, must be at %d, and after the answer to open", offset, b.promised)}
	}
	b.promised = min(offset+int64(b.piece), b.total)
	return nil
}

// take returns the piece at offset, when those before it have been taken: an
// empty one at the end.
func (b *backup) take(offset int64) ([]byte, error) {
	err := b.await(func() bool { return b.taken == offset && (b.whole || len(b.ready) >= b.piece) })
	defer b.mu.Unlock()
	if err != nil {
		return nil, err
	}
	n := min(b.piece, len(b.ready))
	piece := append(make([]byte, 0, n), b.ready[:n]...)
	b.ready = append(b.ready[:0], b.ready[n:]...)
	b.taken += int64(n)
	b.changed.Broadcast()
	return piece, nil
}

// close ends the backup after the reads up to an offset, and reports whether it
// is whole.
func (b *backup) close(upTo int64) (engine.BackupInfo, bool, error) {
	err := b.await(func() bool { return b.taken == upTo })
	defer b.mu.Unlock()
	whole := err == nil && b.whole && b.taken == b.total
	b.stopLocked(errBackupClosed)
	return b.info, whole, err
}

var (
	errBackupClosed = &ipc.Error{Code: ipc.CodeBadRequest, Message: "backup: it was closed"}
	errBackupNone   = &ipc.Error{Code: ipc.CodeBadRequest, Message: "backup: none is open on this connection"}
	errBackupOpen   = &ipc.Error{Code: ipc.CodeBadRequest, Message: "backup: one is open on this connection"}
	errBackups      = &ipc.Error{Code: ipc.CodeBusy, Message: fmt.Sprintf("backup: %d are open already", backupsMax)}
)

// backup carries out the method of that name.
func (c *conn) backup(k call) {
	b := c.backupOf
	switch action := c.call.Action; {
	case action == ipc.ActionOpen && b.alive():
		c.refuse(&k, errBackupOpen)
	case action == ipc.ActionOpen:
		c.openBackup(k)
	case b == nil:
		c.refuse(&k, errBackupNone)
	case action == ipc.ActionRead:
		c.readBackup(k, b)
	default:
		c.closeBackup(k, b)
	}
}

func (c *conn) openBackup(k call) {
	s := c.server
	if s.count.backups.Add(1) > backupsMax {
		s.count.backups.Add(-1)
		c.refuse(&k, errBackups)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := newBackup(min(ipc.MaxBackupPiece, c.limits.Answer-frameRoom), s.settings().BackupTimeout, cancel)
	c.backupOf = b
	c.workers.Add(1)
	go func() {
		defer c.workers.Done()
		defer cancel()
		begin := time.Now()
		c.log.Info("backup begins")
		info, err := s.store.Backup(ctx, b, b.progress)
		b.finished(info, err)
		s.count.backups.Add(-1)
		if err != nil {
			c.log.Warn("backup failed", "error", err)
			return
		}
		c.log.Info("backup is whole", "version", info.Version, "bytes", info.Bytes, "took", time.Since(begin))
	}()
	c.beside(func() func() {
		total, err := b.length()
		return func() {
			switch {
			case err != nil:
				c.refuse(&k, wireError(err))
			case k.answered:
				dst := ipc.AppendMapHeader(ipc.AppendResultHeader(c.output.ready, k.id), 2)
				dst = ipc.AppendInt(ipc.AppendStr(dst, "bytes"), total)
				c.output.ready = ipc.AppendInt(ipc.AppendStr(dst, "piece"), int64(b.piece))
			}
		}
	})
}

func (c *conn) readBackup(k call, b *backup) {
	offset := c.call.Offset
	if err := b.promise(offset); err != nil {
		c.refuse(&k, err)
		return
	}
	c.flight.coming += b.piece
	c.beside(func() func() {
		piece, err := b.take(offset)
		return func() {
			c.flight.coming -= b.piece
			switch {
			case err != nil:
				if c.backupOf == b {
					c.backupOf = nil
				}
				c.refuse(&k, wireError(err))
			case k.answered:
				c.output.ready = ipc.AppendBinResult(c.output.ready, k.id, piece)
			}
		}
	})
}

// closeBackup is answered behind the reads that were sent before it.
func (c *conn) closeBackup(k call, b *backup) {
	c.backupOf = nil
	upTo := b.promised
	c.beside(func() func() {
		info, whole, err := b.close(upTo)
		return func() {
			switch {
			case err != nil:
				c.refuse(&k, wireError(err))
			case !k.answered:
			case !whole:
				c.output.ready = ipc.AppendNilResult(c.output.ready, k.id)
			default:
				c.output.ready = appendBackup(ipc.AppendResultHeader(c.output.ready, k.id), &info)
			}
		}
	})
}

func appendBackup(dst []byte, info *engine.BackupInfo) []byte {
	dst = ipc.AppendMapHeader(dst, 6)
	dst = ipc.AppendBin(ipc.AppendStr(dst, "store"), info.StoreID[:])
	dst = ipc.AppendUint(ipc.AppendStr(dst, "version"), info.Version)
	dst = ipc.AppendInt(ipc.AppendStr(dst, "time"), info.Time.UnixMilli())
	dst = ipc.AppendInt(ipc.AppendStr(dst, "keys"), info.Keys)
	dst = ipc.AppendInt(ipc.AppendStr(dst, "bytes"), info.Bytes)
	return ipc.AppendBin(ipc.AppendStr(dst, "sha256"), info.SHA256[:])
}

// endBackup gives the connection's backup back.
func (c *conn) endBackup() {
	if c.backupOf != nil {
		c.backupOf.stop(errStopping)
		c.backupOf = nil
	}
}
