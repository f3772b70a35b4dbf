package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ioring/iotest/seeds"
	"rskv/ipc"
)

var (
	killRounds = flag.Int("kill.rounds", 0, "how often TestKill kills the daemon; 0: 10 times, 3 with -short")
	killSeed   = flag.Uint64("kill.seed", 0, "seed of TestKill; 0: another one each time")
)

// killClients is how many clients write at a time, each in a session of its own.
const killClients = 8

// TestKill: a write lost that was acknowledged as durable, one carried out
// twice or not at all by a client that goes by what hello tells it, or one in
// the store that hello does not count. A daemon is killed at a random moment of
// its life, again and again on the same store.
func TestKill(t *testing.T) {
	rounds, seed := *killRounds, *killSeed
	if rounds == 0 {
		if rounds = 10; testing.Short() {
			rounds = 3
		}
	}
	if seed == 0 {
		seed = seeds.New(t)
	}
	t.Logf("replay with -kill.seed %d -kill.rounds %d", seed, rounds)
	k := &killing{t: t, dir: place(t), rng: rand.New(rand.NewPCG(seed, 0))}
	for i := range killClients {
		k.clients = append(k.clients, newKillClient(i, seed))
	}
	for round := range rounds {
		k.round(round)
	}
	k.last()
}

// killing is the test: one store, the daemons on it one after the other.
type killing struct {
	t       *testing.T
	dir     string
	rng     *rand.Rand
	clients []*killClient
}

func (k *killing) start() (end func(syscall.Signal) error, socket string) {
	interval := []string{"1ms", "20ms", "200ms", "0"}[k.rng.IntN(4)]
	args := []string{"--commit-interval", interval, "--checkpoint-distance", "1MiB", "--segment-size", "4MiB", "--page-size", "256KiB", "--max-sessions", "20"}
	if k.rng.IntN(4) == 0 { // and die while it recovers
		early := program(k.t, append([]string{"--dir", filepath.Join(k.dir, "data"), "--socket", filepath.Join(k.dir, "s"), "--memory", "32MiB"}, args...)...)
		require.NoError(k.t, early.Start())
		time.Sleep(time.Duration(k.rng.IntN(60)) * time.Millisecond)
		_ = early.Process.Kill()
		_ = early.Wait()
	}
	cmd, socket, stderr := serving(k.t, k.dir, args...)
	return func(signal syscall.Signal) error {
		_ = cmd.Process.Signal(signal)
		err := cmd.Wait()
		if k.t.Failed() {
			k.t.Logf("the daemon said:\n%s", stderr)
		}
		return err
	}, socket
}

// round starts a daemon, looks at what the one before has left, and kills it
// under load.
func (k *killing) round(round int) {
	end, socket := k.start()
	defer func() { _ = end(syscall.SIGKILL) }()
	k.verify(socket)
	var load sync.WaitGroup
	errs := make(chan error, killClients)
	for _, c := range k.clients {
		load.Go(func() {
			if err := c.load(socket); err != nil {
				errs <- fmt.Errorf("round %d, client %d: %w", round, c.index, err)
			}
		})
	}
	time.Sleep(time.Duration(10+k.rng.IntN(300)) * time.Millisecond)
	_ = end(syscall.SIGKILL)
	load.Wait()
	close(errs)
	for err := range errs {
		require.NoError(k.t, err)
	}
}

// verify resumes every session, and compares the store with the numbers told.
func (k *killing) verify(socket string) {
	shared := int64(0)
	for _, c := range k.clients {
		require.NoError(k.t, c.resume(socket), "client %d", c.index)
		c.advance()
		shared += c.shared
	}
	for _, c := range k.clients {
		require.NoError(k.t, c.compare(), "client %d", c.index)
	}
	got, err := k.clients[0].counter([]byte("shared"))
	require.NoError(k.t, err)
	require.Equal(k.t, shared, got, "the counter that all clients add to")
}

// last looks at the store once more after a kill, and after a clean stop, when
// nothing may be missing.
func (k *killing) last() {
	end, socket := k.start()
	k.verify(socket)
	for _, c := range k.clients {
		require.NoError(k.t, c.finish())
	}
	require.NoError(k.t, end(syscall.SIGTERM))
	end, socket = k.start()
	k.verify(socket)
	total := uint64(0)
	for _, c := range k.clients {
		require.Equal(k.t, c.sent, c.applied, "client %d: a clean stop lost writes", c.index)
		total += c.applied
		_ = c.conn.Close()
	}
	require.NoError(k.t, end(syscall.SIGTERM))
	k.t.Logf("%d writes, each carried out once", total)
}

// killClient is a client that knows what its write of each number is, so that
// sending again is to go on from a number.
type killClient struct {
	index int
	seed  uint64

	id      [ipc.SessionSize]byte
	known   bool
	applied uint64        // as hello told
	sent    uint64        // highest number that was ever sent
	durable atomic.Uint64 // highest number acknowledged as durable

	conn  net.Conn
	buf   []byte
	split ipc.Splitter

	// What the store must hold after the writes up to modelled.
	modelled uint64
	own      int64
	shared   int64
	puts     map[uint64]uint64 // slot to the last write's number
	appended map[uint64][]byte // block to its content
	touched  map[uint64]bool   // blocks that were not compared
	multi    uint64            // the last mput's number
}

func newKillClient(index int, seed uint64) *killClient {
	return &killClient{
		index: index, seed: seed,
		puts: map[uint64]uint64{}, appended: map[uint64][]byte{}, touched: map[uint64]bool{},
	}
}

type killKind uint8

const (
	killPut killKind = iota
	killAdd
	killAppend
	killShared
	killMulti
	killRefused
)

const (
	killSlots = 300  // keys that are put
	killBlock = 1000 // writes whose appends go to one key
	killParts = 500  // keys of an mput: enough for many a cut to fall into one
)

// killShares says how often each kind comes, added up.
var killShares = [...]int{killPut: 20, killAdd: 35, killAppend: 50, killShared: 55, killMulti: 56, killRefused: 60}

// write says what the write of a number is.
func (c *killClient) write(number uint64) (kind killKind, synced bool, slot, size uint64) {
	h := rand.New(rand.NewPCG(c.seed+uint64(c.index), number))
	for dice := h.IntN(killShares[killRefused]); dice >= killShares[kind]; {
		kind++
	}
	return kind, h.IntN(40) == 0, h.Uint64N(killSlots), h.Uint64N(200)
}

func (c *killClient) key(kind string, n uint64) []byte {
	return fmt.Appendf(nil, "%d/%s/%d", c.index, kind, n)
}

func number8(number uint64) []byte { return binary.BigEndian.AppendUint64(nil, number) }

// value is what a put of that number stores.
func value(number, size uint64) []byte {
	return append(number8(number), bytes.Repeat([]byte{byte(number)}, int(size))...)
}

// encode appends the request of a write. Its id is the number.
func (c *killClient) encode(dst []byte, number uint64) []byte {
	kind, synced, slot, size := c.write(number)
	method := [...]ipc.Method{
		killPut: ipc.MethodPut, killAdd: ipc.MethodAdd, killAppend: ipc.MethodAppend, killShared: ipc.MethodAdd,
		killMulti: ipc.MethodMPut, killRefused: ipc.MethodPut,
	}[kind]
	count := 2
	if kind == killMulti || kind == killRefused {
		count = 1
	}
	if synced && kind != killRefused {
		count++
	}
	dst = ipc.AppendRequestHeader(dst, uint32(number), method, count)
	switch kind {
	case killPut:
		dst = ipc.AppendBin(ipc.AppendBin(dst, c.key("p", slot)), value(number, size))
	case killAdd:
		dst = ipc.AppendInt(ipc.AppendBin(dst, c.key("n", 0)), 1)
	case killAppend:
		dst = ipc.AppendBin(ipc.AppendBin(dst, c.key("a", number/killBlock)), number8(number))
	case killShared:
		dst = ipc.AppendInt(ipc.AppendBin(dst, []byte("shared")), 1)
	case killMulti:
		dst = ipc.AppendArrayHeader(dst, killParts)
		for i := range uint64(killParts) {
			dst = ipc.AppendBin(ipc.AppendBin(ipc.AppendArrayHeader(dst, 2), c.key("m", i)), number8(number))
		}
	case killRefused: // it has no value
		return ipc.AppendBin(dst, c.key("r", 0))
	}
	if synced {
		dst = ipc.AppendBool(ipc.AppendStr(ipc.AppendMapHeader(dst, 1), "sync"), true)
	}
	return dst
}

// resume connects and says hello; what it tells must fit what was acknowledged.
func (c *killClient) resume(socket string) error {
	var err error
	if c.conn, err = net.Dial("unix", socket); err != nil {
		return err
	}
	c.buf, c.split = nil, ipc.NewSplitter(ipc.MaxAnswer)
	hello := ipc.AppendMapHeader(ipc.AppendRequestHeader(nil, 0, ipc.MethodHello, 1), 1)
	if c.known {
		hello = ipc.AppendBin(ipc.AppendStr(hello, "session"), c.id[:])
	} else {
		hello = ipc.AppendUint(ipc.AppendStr(hello, "protocol"), ipc.ProtocolVersion)
	}
	p, err := c.ask(hello)
	if err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	h, err := ipc.ReadHello(&p.Result)
	if err != nil {
		return err
	}
	switch {
	case h.Applied > c.sent:
		return fmt.Errorf("hello tells %d writes applied, %d were sent", h.Applied, c.sent)
	case h.Durable > h.Applied || h.Durable < c.durable.Load():
		return fmt.Errorf("hello tells %d writes applied, %d durable; %d were acknowledged as durable", h.Applied, h.Durable, c.durable.Load())
	}
	c.id, c.known, c.applied = h.Session, true, h.Applied
	c.durable.Store(h.Durable)
	return nil
}

// next returns the next message.
func (c *killClient) next() (p ipc.Response, err error) {
	for {
		n, refused := c.split.Next(c.buf)
		if refused != nil {
			return p, refused
		}
		if n > 0 {
			message := c.buf[:n]
			c.buf = c.buf[n:]
			return p, ipc.ParseResponse(message, &p)
		}
		_ = c.conn.SetReadDeadline(time.Now().Add(patience))
		c.buf = slices.Grow(slices.Clone(c.buf), 16<<10)
		n, err := c.conn.Read(c.buf[len(c.buf):cap(c.buf)])
		c.buf = c.buf[:len(c.buf)+n]
		if err != nil {
			return p, err
		}
	}
}

// ask sends one request and returns its answer.
func (c *killClient) ask(request []byte) (p ipc.Response, err error) {
	if _, err = c.conn.Write(request); err != nil {
		return p, err
	}
	for {
		if p, err = c.next(); err != nil || p.Type == ipc.TypeResponse {
			break
		}
	}
	if err == nil {
		err = p.Err()
	}
	return p, err
}

// load writes until the daemon is gone, and now and then comes back on another
// connection in between.
func (c *killClient) load(socket string) error {
	rng := rand.New(rand.NewPCG(c.seed, c.applied))
	for {
		err := c.pump(rng)
		if err != nil || c.conn == nil {
			return err
		}
		if err := c.resume(socket); err != nil {
			if gone(err) {
				return nil
			}
			return err
		}
	}
}

// gone reports whether err is what a client sees of a daemon that was killed.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENOENT)
}

// pump writes on one connection, from applied+1 on. It ends by itself after a
// random number of writes, or with the daemon; then conn is nil.
func (c *killClient) pump(rng *rand.Rand) error {
	window := make(chan struct{}, 1+rng.IntN(300))
	ended := make(chan error, 1)
	go func() { ended <- c.listen(window) }()
	until := c.applied + uint64(1+rng.IntN(4000))
	for number := c.applied + 1; number <= until; {
		var burst []byte
		for range 1 + rng.IntN(32) {
			select {
			case window <- struct{}{}:
			case err := <-ended:
				c.conn = nil
				return err
			}
			burst = c.encode(burst, number)
			number++
			if len(window) == cap(window) {
				break
			}
		}
		c.sent = max(c.sent, number-1)
		if _, err := c.conn.Write(burst); err != nil {
			err := <-ended
			c.conn = nil
			return err
		}
		time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond)
	}
	_ = c.conn.Close()
	return <-ended
}

// listen takes answers until the connection ends.
func (c *killClient) listen(window chan struct{}) error {
	for {
		p, err := c.next()
		if err != nil {
			if gone(err) {
				return nil
			}
			return err
		}
		if p.Type == ipc.TypeNotification {
			if err := c.notified(&p); err != nil {
				return err
			}
			continue
		}
		kind, synced, _, _ := c.write(uint64(p.ID))
		switch err := p.Err(); {
		case kind == killRefused && !errors.Is(err, ipc.CodeBadRequest):
			return fmt.Errorf("write %d: %v instead of a refusal", p.ID, err)
		case kind != killRefused && err != nil:
			return fmt.Errorf("write %d: %w", p.ID, err)
		case kind != killRefused && synced:
			c.durable.Store(max(c.durable.Load(), uint64(p.ID)))
		}
		<-window
	}
}

func (c *killClient) notified(p *ipc.Response) error {
	n, err := p.Result.ArrayLen()
	if err != nil || n != 1 || string(p.Method) != ipc.NotifyDurable {
		return fmt.Errorf("notification %q with %d parameters: %w", p.Method, n, err)
	}
	number, err := p.Result.Uint()
	if err == nil {
		c.durable.Store(max(c.durable.Load(), number))
	}
	return err
}

// advance brings the model to what hello told.
func (c *killClient) advance() {
	for ; c.modelled < c.applied; c.modelled++ {
		number := c.modelled + 1
		kind, _, slot, _ := c.write(number)
		switch kind {
		case killPut:
			c.puts[slot] = number
		case killAdd:
			c.own++
		case killAppend:
			block := number / killBlock
			c.appended[block] = append(c.appended[block], number8(number)...)
			c.touched[block] = true
		case killShared:
			c.shared++
		case killMulti:
			c.multi = number
		}
	}
}

// compare compares the store with the model.
func (c *killClient) compare() error {
	if c.modelled != c.applied {
		return fmt.Errorf("hello told %d writes, before it told %d", c.applied, c.modelled)
	}
	if own, err := c.counter(c.key("n", 0)); err != nil || own != c.own {
		return fmt.Errorf("counter is %d after %d adds (%w)", own, c.own, err)
	}
	c.touched[(c.applied+1)/killBlock] = true
	for block := range c.touched {
		if err := c.expect(c.key("a", block), c.appended[block]); err != nil {
			return err
		}
	}
	clear(c.touched)
	for slot := range uint64(killSlots) {
		var want []byte
		if number := c.puts[slot]; number > 0 {
			_, _, _, size := c.write(number)
			want = value(number, size)
		}
		if err := c.expect(c.key("p", slot), want); err != nil {
			return err
		}
	}
	return c.compareMulti()
}

// compareMulti compares what mput has written: the write behind the cut may have
// left its first parts.
func (c *killClient) compareMulti() error {
	next, _, _, _ := c.write(c.applied + 1)
	var last []byte
	if c.multi > 0 {
		last = number8(c.multi)
	}
	request := ipc.AppendArrayHeader(ipc.AppendRequestHeader(nil, 0, ipc.MethodMGet, 1), killParts)
	for i := range uint64(killParts) {
		request = ipc.AppendBin(request, c.key("m", i))
	}
	p, err := c.ask(request)
	if err == nil {
		_, err = p.Result.ArrayLen()
	}
	whole := false // a part that the next mput has not reached was seen
	for i := 0; i < killParts && err == nil; i++ {
		var got []byte
		if !p.Result.TakeNil() {
			got, err = p.Result.Bytes()
		}
		switch {
		case err != nil:
		case bytes.Equal(got, last):
			whole = true
		case whole || next != killMulti || !bytes.Equal(got, number8(c.applied+1)):
			return fmt.Errorf("part %d of mput is %x, expected %x", i, got, last)
		}
	}
	return err
}

func (c *killClient) get(key []byte) ([]byte, error) {
	p, err := c.ask(ipc.AppendGet(nil, 0, key))
	if err != nil || p.Result.TakeNil() {
		return nil, err
	}
	return p.Result.Bytes()
}

func (c *killClient) expect(key, want []byte) error {
	got, err := c.get(key)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%s is %x after %d writes, expected %x", key, got, c.applied, want)
	}
	return err
}

func (c *killClient) counter(key []byte) (int64, error) {
	b, err := c.get(key)
	if err != nil || b == nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(b)), nil
}

// finish sends what was sent before and did not survive, and waits for it.
func (c *killClient) finish() error {
	for number := c.applied + 1; number <= c.sent; number++ {
		if _, err := c.ask(c.encode(nil, number)); err != nil && !errors.Is(err, ipc.CodeBadRequest) {
			return err
		}
	}
	return nil
}
