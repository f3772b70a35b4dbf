package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net"
	"time"

	"rskv/ipc"
)

// WatchOptions of Watch.
type WatchOptions struct {
	// Prefix is what the keys begin with whose changes are wanted.
	Prefix []byte
	// From is where to begin: the Address of a ChangeCommit that a watch has brought. 0 begins with what is
	// written from now on, or, with All, with everything the daemon's log still has.
	From int64
	All  bool
}

// ChangeKind says what a Change is.
type ChangeKind uint8

// The kinds of change.
const (
	ChangePut    ChangeKind = iota + 1 // Key has Value now
	ChangeDelete                       // Key is absent now
	ChangeCommit                       // all changes up to here have come
)

// String returns the kind's name: "put", "del", "commit".
func (k ChangeKind) String() string {
	switch k {
	case ChangePut:
		return ipc.ChangePut
	case ChangeDelete:
		return ipc.ChangeDelete
	}
	return ipc.NotifyCommit
}

// Change is one step of a watch. Its bytes are the caller's.
type Change struct {
	Kind ChangeKind
	// Address is where the daemon's log has the change, which rises from change to change; of a ChangeCommit,
	// what WatchOptions.From takes to go on from there.
	Address    int64
	Key, Value []byte
}

// Watch brings what is changed in the store: of each key its last state in every commit of the store,
// and after the changes of a commit a ChangeCommit. Then whoever has applied all changes has the
// store's state of that moment; between two, the order of different keys means nothing. Only what is
// on stable storage is told, so that no crash takes it back. Commits are made by the daemon as often as
// its setting commit_interval says, and with every write that asks for Sync.
//
// The first that comes is a ChangeCommit with the place at which the watch begins. To have the whole state and
// then what changes in it, begin a watch, Scan after that first ChangeCommit, and apply the watch's changes
// over what the scan has brought.
//
// The watch has a connection of its own. If that is lost, it connects again and goes on where it was,
// also over a restart of the daemon: nothing comes twice and nothing is missing. It ends, with an error
// as the last, when ctx ends; when the Client is closed; when there is no connection for longer than
// WithRetryFor; and with ErrCursorLost when the daemon has given back the part of its log that was not
// told yet. Then begin anew, with the whole state.
//
// The daemon's writers never wait for a watch. A caller that is slow falls behind, and is fed from the
// daemon's disk.
func (c *Client) Watch(ctx context.Context, opt WatchOptions) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		stop := context.AfterFunc(c.closing, func() { cancel(ErrClosed) })
		defer stop()
		w := watch{c: c, opt: opt, now: opt.From == 0, at: opt.From, seen: -1, yield: yield, pause: c.opt.pauseMin}
		err := w.run(ctx)
		switch {
		case errors.Is(err, errEnough):
			return
		case ctx.Err() != nil:
			err = context.Cause(ctx)
		}
		yield(Change{}, fmt.Errorf("watch: %w", err))
	}
}

// errEnough says that the caller wants no more.
var errEnough = errors.New("the caller has enough")

// watch is a Watch under way.
type watch struct {
	c     *Client
	opt   WatchOptions
	yield func(Change, error) bool

	now  bool  // it has not begun, and begins where the daemon is
	at   int64 // the last commit that came, or where to begin
	seen int64 // address of the last change that came; -1: none
	told bool  // at was told to the caller

	downSince time.Time     // when there was a connection last; zero: there is one
	pause     time.Duration // before the next attempt to connect
}

// run watches over any number of connections.
func (w *watch) run(ctx context.Context) error {
	if w.now && w.opt.All {
		stats, err := w.c.Stats(ctx)
		if err != nil {
			return err
		}
		w.now, w.at = false, int64(number(stats, "engine_log_begin"))
	}
	for {
		err := w.follow(ctx)
		if ctx.Err() != nil || w.final(err) {
			return err
		}
		if err := w.await(ctx, err); err != nil {
			return err
		}
	}
}

// final reports whether connecting again is of no use.
func (w *watch) final(err error) bool {
	if errors.Is(err, errEnough) || errors.Is(err, ErrProtocol) {
		return true
	}
	answer, ok := errors.AsType[*Error](err)
	return ok && !(answer.Code == ipc.CodeShuttingDown || answer.Code == ipc.CodeBusy && w.told)
}

// await rests before the next attempt, unless there has been no connection for too long.
func (w *watch) await(ctx context.Context, cause error) error {
	if w.downSince.IsZero() {
		w.downSince, w.pause = time.Now(), w.c.opt.pauseMin
	}
	down := time.Since(w.downSince)
	if down >= w.c.opt.retryFor {
		return &lostError{cause: fmt.Errorf("no connection for %v: %w", down.Round(time.Millisecond), cause)}
	}
	pause := min(w.pause/2+rand.N(w.pause/2+1), w.c.opt.retryFor-down)
	w.pause = min(2*w.pause, w.c.opt.pauseMax)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pause):
		return nil
	}
}

// follow watches over one connection.
func (w *watch) follow(ctx context.Context) error {
	conn, err := dial(ctx, w.c.path)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := conn.Write(w.request()); err != nil {
		return err
	}
	return w.read(conn)
}

// watchID is the id of the one request on a connection.
const watchID = 1

// request asks for the changes that have not come yet.
func (w *watch) request() []byte {
	n := 0
	for _, given := range []bool{len(w.opt.Prefix) > 0, !w.now} {
		if given {
			n++
		}
	}
	b := ipc.AppendMapHeader(ipc.AppendRequestHeader(nil, watchID, ipc.MethodWatch, 1), n)
	if len(w.opt.Prefix) > 0 {
		b = ipc.AppendBin(ipc.AppendStr(b, "prefix"), w.opt.Prefix)
	}
	if !w.now {
		b = ipc.AppendInt(ipc.AppendStr(b, "from"), w.at)
	}
	return b
}

// read hands out what comes on a connection until that fails.
func (w *watch) read(conn net.Conn) error {
	split := ipc.NewSplitter(ipc.MaxAnswer)
	buf := make([]byte, readSize)
	fill := 0
	for {
		n, err := conn.Read(buf[fill:])
		fill += n
		used := 0
		for {
			size, serr := split.Next(buf[used:fill])
			if serr != nil {
				return fmt.Errorf("%w: %w", ErrProtocol, serr)
			}
			if size == 0 {
				break
			}
			again, err := w.take(buf[used : used+size])
			if err != nil {
				return err
			}
			if used += size; !again {
				continue
			}
			if _, err := conn.Write(w.request()); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		if used > 0 { // not for each piece of a long change: moving it each time would be quadratic
			fill = copy(buf, buf[used:fill])
		}
		switch {
		case fill == len(buf):
			buf = append(buf, make([]byte, len(buf))...)
		case len(buf) > readKept && fill < readSize:
			buf = append(make([]byte, 0, readSize), buf[:fill]...)[:readSize]
		}
	}
}

// take takes one message. again says that the watch is to be asked for once more.
func (w *watch) take(message []byte) (again bool, err error) {
	var p ipc.Response
	if err := ipc.ParseResponse(message, &p); err != nil {
		return false, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if p.Type == ipc.TypeResponse {
		return false, w.begun(&p)
	}
	switch string(p.Method) {
	case ipc.NotifyChange:
		return false, w.change(&p)
	case ipc.NotifyCommit:
		at, err := ipc.ReadPlace(&p.Result)
		if err != nil || at < w.at {
			return false, fmt.Errorf("%w: commit %d behind %d", ErrProtocol, at, w.at)
		}
		return false, w.commit(at)
	case ipc.NotifyLagged:
		return true, nil // what the daemon has from there it tells next
	}
	return false, nil // of another kind
}

// begun takes the answer to the request.
func (w *watch) begun(p *ipc.Response) error {
	if err := p.Err(); err != nil {
		return err
	}
	at, err := p.Result.Int()
	if err != nil || p.ID != watchID || !w.now && at != w.at {
		return fmt.Errorf("%w: watch from %d begins at %d", ErrProtocol, w.at, at)
	}
	w.now, w.downSince = false, time.Time{}
	return w.commit(at)
}

func (w *watch) change(p *ipc.Response) error {
	change, err := ipc.ReadChange(&p.Result)
	if err != nil {
		return fmt.Errorf("%w: change: %w", ErrProtocol, err)
	}
	if change.Address <= w.seen {
		return nil // it came before the connection was lost
	}
	w.seen = change.Address
	n := len(change.Key)
	b := append(append(make([]byte, 0, n+len(change.Value)), change.Key...), change.Value...)
	c := Change{Kind: ChangePut, Address: change.Address, Key: b[:n:n], Value: b[n:]}
	if change.Deleted {
		c.Kind, c.Value = ChangeDelete, nil
	}
	return w.give(c)
}

// commit tells a place to go on from, unless it was told.
func (w *watch) commit(at int64) error {
	if w.told && at == w.at {
		return nil
	}
	w.at, w.told = at, true
	return w.give(Change{Kind: ChangeCommit, Address: at})
}

func (w *watch) give(c Change) error {
	if !w.yield(c, nil) {
		return errEnough
	}
	return nil
}
