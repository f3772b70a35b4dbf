package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vmihailenco/msgpack/v5"
	"go.uber.org/goleak"

	"rskv/ioring"
	"rskv/ipc"
)

// Every test must leave no goroutine behind: one that stays is a connection
// that was not finished, or a store that was not closed.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// less is how much of something a test does: a part of it with -short.
func less(n, short int) int {
	if testing.Short() {
		return short
	}
	return n
}

// patience is how long anything in a test may take that should be quick.
const patience = time.Minute

// running is a daemon in this process.
type running struct {
	t      testing.TB
	cfg    Config
	cancel context.CancelFunc
	ended  chan struct{}
	err    error
	log    *logBuffer
}

// testConfig is a small store in a directory of its own, whose path is short
// enough for a socket.
func testConfig(t testing.TB) Config {
	dir, err := os.MkdirTemp("", "rskvd")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	cfg := Defaults()
	cfg.Dir, cfg.Socket = filepath.Join(dir, "data"), filepath.Join(dir, "s")
	cfg.Memory, cfg.SegmentSize, cfg.PageSize = 32<<20, 16<<20, 256<<10
	return cfg
}

// start runs a daemon with the settings that change leaves.
func start(t testing.TB, change func(*Config)) *running {
	cfg := testConfig(t)
	if change != nil {
		change(&cfg)
	}
	return startWith(t, cfg)
}

func startWith(t testing.TB, cfg Config) *running { return startOn(t, cfg, nil) }

// startOn runs a daemon on a device instead of its directory, unless that is nil.
func startOn(t testing.TB, cfg Config, device ioring.Device) *running {
	ctx, cancel := context.WithCancel(context.Background())
	d := &running{t: t, cfg: cfg, cancel: cancel, ended: make(chan struct{}), log: &logBuffer{}}
	ready := make(chan struct{})
	go func() {
		defer close(d.ended)
		d.err = Run(ctx, cfg, Environment{Log: d.log, Device: device, Ready: func() { close(ready) }})
	}()
	select {
	case <-ready:
	case <-d.ended:
		require.NoError(t, d.err)
	case <-time.After(patience):
		t.Fatal("the daemon did not start")
	}
	t.Cleanup(d.stop)
	return d
}

// stop ends the daemon as SIGTERM would, and checks that it ended well.
func (d *running) stop() {
	d.cancel()
	select {
	case <-d.ended:
	case <-time.After(patience):
		buf := make([]byte, 1<<20)
		d.t.Fatalf("the daemon did not stop; goroutines:\n%s", buf[:runtime.Stack(buf, true)])
	}
	require.NoError(d.t, d.err)
	if d.t.Failed() {
		d.t.Log(d.log.String())
	}
}

// wire is a client made of nothing but a socket and msgpack/v5: it shares no
// encoder with the daemon.
type wire struct {
	t    testing.TB
	conn *net.UnixConn
	buf  []byte
	read ipc.Splitter
	id   uint32
	told []int64 // durable numbers of notifications
	news []news  // other notifications, and not looked at yet
}

// news is a notification of a watch.
type news struct {
	method string
	params []any
}

func (d *running) dial() *wire { return dialPath(d.t, d.cfg.Socket) }

func dialPath(t testing.TB, path string) *wire {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return &wire{t: t, conn: conn, read: ipc.NewSplitter(1 << 30)}
}

// answer is one message from the daemon.
type answer struct {
	id     uint32
	code   string // "": no error
	reason string
	result any
}

// request encodes a request.
func request(id uint32, method string, params ...any) []byte {
	if params == nil {
		params = []any{}
	}
	b, err := msgpack.Marshal([]any{0, id, method, params})
	if err != nil {
		panic(err)
	}
	return b
}

// notification encodes one.
func notification(method string, params ...any) []byte {
	if params == nil {
		params = []any{}
	}
	b, err := msgpack.Marshal([]any{2, method, params})
	if err != nil {
		panic(err)
	}
	return b
}

func (w *wire) send(b []byte) {
	w.t.Helper()
	_ = w.conn.SetWriteDeadline(time.Now().Add(patience))
	_, err := w.conn.Write(b)
	require.NoError(w.t, err)
}

// receive returns the next answer; io.EOF when the daemon has closed.
func (w *wire) receive() (answer, error) {
	for {
		message, err := w.message()
		if err != nil {
			return answer{}, err
		}
		if !w.notified(message) {
			return decodeAnswer(message)
		}
	}
}

// message returns the next message.
func (w *wire) message() ([]byte, error) {
	for {
		n, refused := w.read.Next(w.buf)
		if refused != nil {
			return nil, refused
		}
		if n > 0 {
			message := w.buf[:n]
			w.buf = w.buf[n:]
			return message, nil
		}
		_ = w.conn.SetReadDeadline(time.Now().Add(patience))
		room := make([]byte, 64<<10)
		n, err := w.conn.Read(room)
		if err != nil {
			return nil, err
		}
		w.buf = append(w.buf, room[:n]...)
	}
}

// notified takes a message if it is a notification.
func (w *wire) notified(message []byte) bool {
	var parts []any
	if msgpack.Unmarshal(message, &parts) != nil || len(parts) != 3 {
		return false
	}
	require.Equal(w.t, int64(2), plain(parts[0]))
	params := plain(parts[2]).([]any)
	if parts[1] != ipc.NotifyDurable {
		w.news = append(w.news, news{parts[1].(string), params})
		return true
	}
	require.Len(w.t, params, 1)
	w.told = append(w.told, params[0].(int64))
	return true
}

// next returns the next notification of a watch.
func (w *wire) next() news {
	w.t.Helper()
	for len(w.news) == 0 {
		message, err := w.message()
		require.NoError(w.t, err)
		if !w.notified(message) {
			a, err := decodeAnswer(message)
			require.Failf(w.t, "no notification", "%+v %v", a, err)
		}
	}
	n := w.news[0]
	w.news = w.news[1:]
	return n
}

func decodeAnswer(message []byte) (answer, error) {
	var parts []any
	if err := msgpack.Unmarshal(message, &parts); err != nil {
		return answer{}, err
	}
	if len(parts) != 4 || plain(parts[0]) != int64(1) {
		return answer{}, fmt.Errorf("not a response: %v", parts)
	}
	a := answer{id: uint32(plain(parts[1]).(int64)), result: plain(parts[3])}
	if e, ok := parts[2].([]any); ok {
		a.code, a.reason = e[0].(string), e[1].(string)
	}
	return a, nil
}

// plain makes every integer an int64, so that answers can be compared whatever
// encoding they came in.
func plain(v any) any {
	switch v := v.(type) {
	case int8:
		return int64(v)
	case int16:
		return int64(v)
	case int32:
		return int64(v)
	case uint8:
		return int64(v)
	case uint16:
		return int64(v)
	case uint32:
		return int64(v)
	case uint64:
		return int64(v)
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = plain(v[k])
		}
	}
	return v
}

func (w *wire) must() answer {
	w.t.Helper()
	a, err := w.receive()
	require.NoError(w.t, err)
	return a
}

// ask sends one request and returns its answer, with the error's code if it
// was refused.
func (w *wire) ask(method string, params ...any) answer {
	w.t.Helper()
	w.id++
	w.send(request(w.id, method, params...))
	a := w.must()
	require.Equal(w.t, w.id, a.id, "an answer to another request: %+v", a)
	return a
}

// want asks and compares the result.
func (w *wire) want(result any, method string, params ...any) {
	w.t.Helper()
	a := w.ask(method, params...)
	require.Empty(w.t, a.code, "%s: %s", method, a.reason)
	require.Equal(w.t, result, a.result, method)
}

// refuse asks and compares the error's code.
func (w *wire) refuse(code ipc.Code, method string, params ...any) {
	w.t.Helper()
	a := w.ask(method, params...)
	require.Equal(w.t, string(code), a.code, "%s answered %v %s", method, a.result, a.reason)
}

// closed checks that the daemon closes the connection, after answers that are
// passed over.
func (w *wire) closed() {
	w.t.Helper()
	for {
		_, err := w.receive()
		if err == nil {
			continue
		}
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			w.t.Fatal("the connection is still open")
		}
		return
	}
}
