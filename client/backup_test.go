package client_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"testing"
	"time"

	"rskv/client"
	"rskv/ipc"

	"github.com/stretchr/testify/require"
)

// fakeBackup answers backup with a stream of bytes, in pieces, as the hook of a fakeServer.
type fakeBackup struct {
	stream []byte
	piece  int
	digest [32]byte
	fail   int64  // the offset whose read fails; -1: none
	short  bool   // pieces lack a byte
	hang   func() // called for reads, which are not answered; nil: they are

	closed chan bool // one value for each close: whether everything had been read
	read   int64
}

func newFakeBackup(size, piece int) *fakeBackup {
	b := &fakeBackup{stream: make([]byte, size), piece: piece, fail: -1, closed: make(chan bool, 10)}
	for i := range b.stream {
		b.stream[i] = byte(i * i >> 8)
	}
	b.digest = sha256.Sum256(b.stream[:size-ipc.BackupTail])
	return b
}

func (b *fakeBackup) hook(_ *fakeServer, conn net.Conn, q *ipc.Request) bool {
	lim := ipc.DefaultLimits()
	var c ipc.Call
	if q.Method != ipc.MethodBackup || ipc.ParseCall(q, &lim, &c) != nil {
		return false
	}
	_, _ = conn.Write(b.answer(q.ID, &c))
	return true
}

func (b *fakeBackup) answer(id uint32, c *ipc.Call) []byte {
	head := ipc.AppendResultHeader(nil, id)
	switch c.Action {
	case ipc.ActionOpen:
		b.read = 0
		head = ipc.AppendUint(ipc.AppendStr(ipc.AppendMapHeader(head, 2), "bytes"), uint64(len(b.stream)))
		return ipc.AppendUint(ipc.AppendStr(head, "piece"), uint64(b.piece))
	case ipc.ActionClose:
		whole := b.read == int64(len(b.stream))
		b.closed <- whole
		if !whole {
			return ipc.AppendNil(head)
		}
		head = ipc.AppendUint(ipc.AppendStr(ipc.AppendMapHeader(head, 4), "bytes"), uint64(len(b.stream)))
		head = ipc.AppendUint(ipc.AppendStr(head, "version"), 42)
		head = ipc.AppendBin(ipc.AppendStr(head, "store"), bytes.Repeat([]byte{7}, 16))
		return ipc.AppendBin(ipc.AppendStr(head, "sha256"), b.digest[:])
	}
	if b.hang != nil {
		b.hang()
		return nil
	}
	if c.Offset == b.fail {
		return ipc.AppendErrorResponse(nil, id, ipc.CodeCorrupt, "damaged")
	}
	end := min(c.Offset+int64(b.piece), int64(len(b.stream)))
	b.read = end
	if b.short {
		end--
	}
	return ipc.AppendBin(head, b.stream[c.Offset:end])
}

// What could go wrong: pieces are written in another order, or not all of them, or the digest is not
// about what was written.
func TestBackup(t *testing.T) {
	for _, size := range []int{ipc.BackupTail + 1, 999, 1000, 1001, 10_000} {
		b := newFakeBackup(size, 1000)
		s := newFakeServer(t)
		s.hook = b.hook
		c := dialFake(t, s)
		var out bytes.Buffer
		var steps []int64
		info, err := c.Backup(t.Context(), &out, func(done, total int64) {
			require.EqualValues(t, size, total)
			steps = append(steps, done)
		})
		require.NoError(t, err)
		require.Equal(t, b.stream, out.Bytes())
		require.Equal(t, client.Backup{StoreID: [16]byte(bytes.Repeat([]byte{7}, 16)), Version: 42, Time: time.UnixMilli(0), Bytes: int64(size), SHA256: b.digest}, info)
		require.Len(t, steps, (size+999)/1000)
		require.EqualValues(t, size, steps[len(steps)-1])
		require.True(t, <-b.closed)
	}
}

// What could go wrong: a backup that is damaged or cut short is taken for a whole one, or the daemon
// goes on holding it.
func TestBackup_Fails(t *testing.T) {
	refused := errors.New("disk full here")
	for name, x := range map[string]struct {
		spoil func(b *fakeBackup)
		ends  bool // the context, when the first read is under way
		out   failingWriter
		want  error
		whole bool
	}{
		"another digest": {spoil: func(b *fakeBackup) { b.stream[77] ^= 1 }, want: client.ErrBackup, whole: true},
		"damage":         {spoil: func(b *fakeBackup) { b.fail = 3000 }, want: client.ErrCorrupt},
		"short pieces":   {spoil: func(b *fakeBackup) { b.short = true }, want: client.ErrProtocol},
		"writer":         {out: failingWriter{after: 2, err: refused}, want: refused},
		"context":        {ends: true, want: context.Canceled},
	} {
		b := newFakeBackup(5000, 1000)
		if x.spoil != nil {
			x.spoil(b)
		}
		s := newFakeServer(t)
		s.hook = b.hook
		ctx, cancel := context.WithCancel(t.Context())
		if x.ends {
			b.hang = cancel
		}
		_, err := dialFake(t, s).Backup(ctx, &x.out, nil)
		cancel()
		require.ErrorIs(t, err, x.want, name)
		require.ErrorContains(t, err, "backup: ", name)
		whole := <-b.closed
		if x.whole {
			require.True(t, whole, name)
		}
	}
}

// failingWriter fails after some writes, if err is set.
type failingWriter struct {
	after int
	err   error
}

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.after--; w.after < 0 && w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}
