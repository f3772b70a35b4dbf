package client_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"rskv/client"
	"rskv/client/rskvtest"
	"rskv/ioring/iotest/seeds"
)

var (
	linearHistories = flag.Int("linear.histories", 120, "how many histories TestLinearizable checks; a tenth of it with -short")
	linearSeed      = flag.Uint64("linear.seed", 0, "seed of TestLinearizable; 0 draws one")
)

// The test of linearizability. Eight clients use a few keys by all operations, over the socket, while
// connections are cut, the daemon is stopped, killed or loses its power, and a ninth writes so much that
// what they use is on disk, is moved by compaction, and the index grows. The answers of each key must fit
// into one order that agrees with the time (package porcupine). An answer counts as given
//
//	calm     when it is there: nothing is lost when the daemon stops in order
//	harsh    when what it is based on is durable: a write has the option Sync, or a Sync follows; a
//	         read is followed by a Sync, and by no crash in between
//
// A write whose answer is lost may take effect at any later time, or never; one that has failed otherwise
// never does.
const (
	linearClients = 8
	linearEach    = 40 // operations of a client in a history
	linearTexts   = 4  // keys of a history
	linearCounts  = 2
	linearAtOnce  = 4 // histories that run at a time
)

// linearVictim is the daemon under test, with what can be done to it.
type linearVictim struct {
	socket string
	harsh  bool
	// crash, restart and cut are what happens to it; nil: does not.
	crash, restart, cut func() error
	crashes             atomic.Uint64 // raised before and after each: odd while one is under way
	events              [3]atomic.Int64
	answers             atomic.Int64 // that clients have got
}

// TestLinearizable: an answer that no order of the operations explains.
func TestLinearizable(t *testing.T) {
	seed := *linearSeed
	if seed == 0 {
		seed = seeds.New(t)
	}
	t.Logf("replay with -linear.seed %d, as far as goroutines can be replayed", seed)
	histories := *linearHistories
	if testing.Short() {
		histories /= 10
	}
	small := []rskvtest.Option{
		rskvtest.Setting("live_ratio", "0.8"), rskvtest.Setting("commit_interval", "3ms"), rskvtest.Setting("checkpoint_distance", "4MiB"),
	}
	t.Run("Calm", func(t *testing.T) {
		s := rskvtest.NewServer(t, small...)
		runLinear(t, seed, histories*5/12, &linearVictim{socket: s.Socket(), restart: s.Restart, cut: disconnect(s)})
	})
	t.Run("PowerCuts", func(t *testing.T) {
		s := rskvtest.NewServer(t, small...)
		runLinear(t, seed+1, histories*5/12, &linearVictim{socket: s.Socket(), harsh: true, crash: s.Crash, restart: s.Restart, cut: disconnect(s)})
	})
	t.Run("Kills", func(t *testing.T) {
		if testing.Short() {
			t.Skip("builds and kills a daemon")
		}
		d := buildDaemon(t)
		d.args = []string{"--live-ratio", "0.8", "--commit-interval", "3ms", "--checkpoint-distance", "4MiB", "--page-size", "256KiB", "--segment-size", "4MiB"}
		d.start()
		_ = d.dial(d.socket).Close() // it is there
		proxy := newCutter(t, d.socket)
		runLinear(t, seed+2, histories-2*(histories*5/12), &linearVictim{
			socket: proxy.path, harsh: true, cut: func() error { proxy.cut(); return nil },
			crash: func() error { d.kill(); d.start(); return nil },
		})
	})
}

func disconnect(s *rskvtest.Server) func() error {
	return func() error { s.Disconnect(); return nil }
}

// runLinear records histories, with trouble all the time, and checks them.
func runLinear(t *testing.T, seed uint64, histories int, v *linearVictim) {
	ctx := within(t, 10*time.Minute)
	dial := func(opts ...client.Option) *client.Client {
		opts = append(opts, client.WithRetryFor(time.Minute), client.WithBackoff(time.Millisecond, 10*time.Millisecond))
		for {
			c, err := client.Dial(ctx, v.socket, opts...)
			if err == nil {
				return c
			}
			require.NoError(t, ctx.Err(), "last: %v", err)
			time.Sleep(time.Millisecond)
		}
	}
	all := make([]*linearHistory, histories)
	first := dial()
	for i := range all {
		all[i] = &linearHistory{v: v, number: i, seed: seed, begin: time.Now()}
		all[i].fill(ctx, t, first)
	}
	_, err := first.Sync(ctx)
	require.NoError(t, err)
	stop := make(chan struct{})
	var beside sync.WaitGroup
	flooder := dial()
	beside.Go(func() { flood(ctx, flooder, stop) })
	before := linearCounters(ctx, t, first)
	require.Eventually(t, func() bool { return linearCounters(ctx, t, first).written > before.written+48<<20 }, 3*time.Minute, time.Millisecond,
		"what was written first has to leave the memory")
	var tally linearTally
	beside.Go(func() {
		v.trouble(ctx, t, rand.New(rand.NewPCG(seed, 1)), stop, func() { tally.add(linearCounters(ctx, t, first)) })
	})

	var work sync.WaitGroup
	turn := make(chan *linearHistory)
	for range linearAtOnce {
		work.Go(func() {
			for h := range turn {
				h.record(ctx, dial)
			}
		})
	}
	for _, h := range all {
		turn <- h
	}
	close(turn)
	work.Wait()
	close(stop)
	beside.Wait()
	tally.add(linearCounters(ctx, t, first))
	require.NoError(t, flooder.Close())
	require.NoError(t, first.Close())
	counts := [3]int{}
	for _, h := range all {
		for i, n := range h.check(t) {
			counts[i] += n
		}
	}
	t.Logf("%d histories: %d answers, %d writes with an unknown end, %d without effect or dropped; %d crashes, %d restarts, %d cuts; %v",
		histories, counts[0], counts[1], counts[2], v.events[0].Load(), v.events[1].Load(), v.events[2].Load(), &tally)
	if histories >= 20 { // a few are over before anything of this need happen
		require.Positive(t, tally.cold, "nothing was read from the disk")
	}
	if histories >= 50 {
		require.Positive(t, tally.compactions, "nothing was compacted")
		require.Positive(t, tally.growths, "the index did not grow")
	}
}

// trouble has something happen to the daemon every few answers: by the clock, a slow machine would do
// nothing else.
func (v *linearVictim) trouble(ctx context.Context, t *testing.T, rng *rand.Rand, stop <-chan struct{}, before func()) {
	for next := int64(0); ; {
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
		if v.answers.Load() < next {
			continue
		}
		next = v.answers.Load() + 20 + rng.Int64N(400)
		kind := []int{0, 1, 2, 2, 2}[rng.IntN(5)]
		do := []func() error{v.crash, v.restart, v.cut}[kind]
		if do == nil {
			continue
		}
		if kind < 2 {
			before() // its counters begin anew
		}
		if kind == 0 {
			v.crashes.Add(1)
		}
		if err := do(); err != nil {
			t.Error(err)
			return
		}
		if kind == 0 {
			v.crashes.Add(1)
		}
		v.events[kind].Add(1)
	}
}

// linearTally is what the daemon says it did meanwhile.
type linearTally struct{ cold, compactions, growths, written int64 }

func (a *linearTally) add(b linearTally) {
	a.cold += b.cold
	a.compactions += b.compactions
	a.growths += b.growths
	a.written += b.written
}

func (a *linearTally) String() string {
	return fmt.Sprintf("%d reads from disk, %d compactions, the index doubled %d times, %d MiB written", a.cold, a.compactions, a.growths, a.written>>20)
}

// linearCounters asks the daemon, until it answers.
func linearCounters(ctx context.Context, t *testing.T, c *client.Client) (n linearTally) {
	for ctx.Err() == nil {
		stats, err := c.Stats(ctx)
		if err != nil {
			continue
		}
		number := func(name string) int64 {
			switch x := stats["engine_"+name].(type) {
			case int64:
				return x
			case uint64:
				return int64(x)
			default:
				t.Errorf("counter %s is %T", name, x)
			}
			return 0
		}
		return linearTally{number("cold_reads"), number("compactions"), number("index_doublings"), number("device_written_bytes")}
	}
	return n
}

// flood writes what pushes everything else out of the memory, and makes the index grow.
func flood(ctx context.Context, c *client.Client, stop <-chan struct{}) {
	value := make([]byte, 24<<10)
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
		b := c.NewBatch()
		for j := range 20 {
			b.Put(fmt.Appendf(nil, "flood/%d", (i*20+j)%1500), value)
		}
		for j := range 500 {
			b.Put(fmt.Appendf(nil, "small/%d", (i*500+j)%200_000), value[:8])
		}
		_ = b.Do(ctx) // as far as the daemon is there
	}
}

// linearHistory is what clients did to a few keys, and what they were told.
type linearHistory struct {
	v      *linearVictim
	number int
	seed   uint64
	begin  time.Time

	mu      sync.Mutex
	ops     [linearTexts + linearCounts][]porcupine.Operation
	counts  [3]int // answers, unknown ends, without effect
	trouble error
}

func (h *linearHistory) key(k int) []byte { return fmt.Appendf(nil, "history %d/%d", h.number, k) }

func (h *linearHistory) now() int64 { return int64(time.Since(h.begin)) }

// fill gives the texts their first values.
func (h *linearHistory) fill(ctx context.Context, t *testing.T, c *client.Client) {
	for k := range linearTexts {
		value := fmt.Sprintf("first of %d", k)
		call := h.now()
		_, err := c.Put(ctx, h.key(k), []byte(value))
		require.NoError(t, err)
		h.ops[k] = []porcupine.Operation{{Input: linearInput{kind: linearPut, value: value}, Call: call, Output: linearOutput{known: true, found: true}, Return: h.now()}}
	}
}

// record has the clients do their part. Some share a Client, and half of these have a session.
func (h *linearHistory) record(ctx context.Context, dial func(...client.Option) *client.Client) {
	var all sync.WaitGroup
	for i := 0; i < linearClients; {
		var opts []client.Option
		if i%4 < 2 {
			opts = append(opts, client.WithSession())
		}
		c := dial(opts...)
		sharing := 1 + i%3
		var some sync.WaitGroup
		for range min(sharing, linearClients-i) {
			w := &linearClient{h: h, c: c, id: i, rng: rand.New(rand.NewPCG(h.seed, uint64(1000*h.number+i)))}
			some.Go(func() { w.run(ctx) })
			i++
		}
		all.Go(func() {
			some.Wait()
			_ = c.Close()
		})
	}
	all.Wait()
}

// check checks the answers of each key.
func (h *linearHistory) check(t *testing.T) [3]int {
	if h.trouble != nil {
		t.Errorf("history %d: %v", h.number, h.trouble)
	}
	for k, ops := range h.ops {
		switch porcupine.CheckOperationsTimeout(linearRegister, ops, 20*time.Second) {
		case porcupine.Illegal:
			t.Errorf("history %d, key %d: the answers fit into no order:\n%s", h.number, k, describeLinear(ops))
		case porcupine.Unknown:
			t.Logf("history %d, key %d: too hard to check", h.number, k)
		}
	}
	return h.counts
}

func describeLinear(ops []porcupine.Operation) string {
	var b bytes.Buffer
	for _, op := range ops {
		fmt.Fprintf(&b, "client %d  %9d to %9d us  %s\n", op.ClientId, op.Call/1000, min(op.Return, int64(time.Hour))/1000, linearRegister.DescribeOperation(op.Input, op.Output))
	}
	return b.String()
}

type linearKind uint8

const (
	linearGet linearKind = iota
	linearExists
	linearPut
	linearPutAbsent
	linearPutPresent
	linearDelete
	linearSwap
	linearAppend
	linearAdd
)

var linearNames = [...]string{"get", "exists", "put", "put if absent", "put if present", "delete", "swap", "append", "add"}

// linearInput is an operation of one key.
type linearInput struct {
	kind  linearKind
	value string // put, appended, or swapped for old
	old   string // "": absent
	gone  bool   // it is swapped for nothing
	delta int64
}

// linearOutput is its answer.
type linearOutput struct {
	known bool   // found and value are
	found bool   // or stored, or swapped
	value string // got; after add and append the number as text
}

// linearRegister is a key as a state machine: its state is "" for absent, else "=" and the value.
var linearRegister = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(string), input.(linearInput), output.(linearOutput)
		there := now != ""
		found, value, next := there, "", now
		switch in.kind {
		case linearGet:
			if there {
				value = now[1:]
			}
		case linearPut, linearPutAbsent, linearPutPresent:
			found = in.kind == linearPut || there == (in.kind == linearPutPresent)
			if found {
				next = "=" + in.value
			}
		case linearDelete:
			next = ""
		case linearSwap:
			old := ""
			if in.old != "" {
				old = "=" + in.old
			}
			if found = now == old; found && in.gone {
				next = ""
			} else if found {
				next = "=" + in.value
			}
		case linearAppend:
			if next += in.value; !there {
				next = "=" + in.value
			}
			found, value = true, fmt.Sprint(len(next)-1)
		case linearAdd:
			sum := in.delta
			if there {
				sum += int64(binary.LittleEndian.Uint64([]byte(now[1:])))
			}
			next = "=" + string(binary.LittleEndian.AppendUint64(nil, uint64(sum)))
			found, value = true, fmt.Sprint(sum)
		}
		return !out.known || out.found == found && out.value == value, next
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(linearInput), output.(linearOutput)
		text := fmt.Sprintf("%s %.30q", linearNames[in.kind], in.value)
		switch {
		case in.kind == linearSwap:
			text = fmt.Sprintf("swap %.30q for %.30q, gone %t", in.old, in.value, in.gone)
		case in.kind == linearAdd:
			text = fmt.Sprintf("add %d", in.delta)
		}
		if !out.known {
			return text + " -> ?"
		}
		return fmt.Sprintf("%s -> %t %.30q", text, out.found, out.value)
	},
}

// linearClient is one of the clients.
type linearClient struct {
	h    *linearHistory
	c    *client.Client
	id   int
	rng  *rand.Rand
	n    int
	seen string // the last value of a text
}

// linearCall is one request: of several keys, if it is an mget, mput or mdel, each of which is an
// operation of its own.
type linearCall struct {
	keys   []int
	inputs []linearInput
	// do sends it. It returns the answers, or none where they are not known one by one.
	do    func(ctx context.Context, sync []client.WriteOption) ([]linearOutput, error)
	reads bool
}

func (w *linearClient) run(ctx context.Context) {
	for range linearEach {
		w.step(ctx)
		switch w.rng.IntN(10) {
		case 0:
			time.Sleep(time.Duration(w.rng.IntN(10)) * time.Millisecond)
		case 1:
			time.Sleep(time.Duration(w.rng.IntN(1000)) * time.Microsecond)
		}
	}
}

// step makes one call and notes what has become of it.
func (w *linearClient) step(ctx context.Context) {
	call := w.draw()
	var opts []client.WriteOption
	optioned := w.rng.IntN(2) == 0
	if w.h.v.harsh && optioned {
		opts = []client.WriteOption{client.Sync}
	}
	crashes, began := w.h.v.crashes.Load(), w.h.now()
	answers, err := call.do(ctx, opts)
	if err == nil && w.h.v.harsh && (call.reads || !optioned) {
		if _, err = w.c.Sync(ctx); err == nil && (crashes%2 == 1 || w.h.v.crashes.Load() != crashes) {
			err = client.ErrAnswerLost // what it said may have been undone since
		}
	}
	back := w.h.now()
	h := w.h
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err == nil:
		h.counts[0]++
		h.v.answers.Add(1)
	case !errors.Is(err, client.ErrConnLost) && !errors.Is(err, client.ErrAnswerLost) && !errors.Is(err, client.ErrShuttingDown):
		h.trouble = fmt.Errorf("client %d: %w", w.id, err)
		return
	case call.reads || answers == nil && !errors.Is(err, client.ErrAnswerLost):
		h.counts[2]++
		return
	default:
		h.counts[1]++
		answers, back = nil, math.MaxInt64
	}
	for i, k := range call.keys {
		var out linearOutput
		if i < len(answers) {
			out = answers[i]
		}
		h.ops[k] = append(h.ops[k], porcupine.Operation{ClientId: w.id, Input: call.inputs[i], Call: began, Output: out, Return: back})
	}
}

func (w *linearClient) draw() linearCall {
	if w.rng.IntN(4) == 0 {
		return w.count(linearTexts + w.rng.IntN(linearCounts))
	}
	return w.text(w.rng.IntN(linearTexts))
}

// value is one that nobody else writes, mostly small.
func (w *linearClient) value() string {
	w.n++
	text := fmt.Sprintf("%d.%d ", w.id, w.n)
	if w.rng.IntN(10) == 0 {
		text += string(bytes.Repeat([]byte{'.'}, w.rng.IntN(3000)))
	}
	return text
}

// answered makes the answers of a call of one key.
func answered(found bool, value string, err error) ([]linearOutput, error) {
	if err != nil {
		return nil, err
	}
	return []linearOutput{{known: true, found: found, value: value}}, nil
}

func (w *linearClient) get(k int) linearCall {
	return linearCall{keys: []int{k}, inputs: []linearInput{{kind: linearGet}}, reads: true, do: func(ctx context.Context, _ []client.WriteOption) ([]linearOutput, error) {
		v, err := w.c.Get(ctx, w.h.key(k))
		if errors.Is(err, client.ErrNotFound) {
			return answered(false, "", nil)
		}
		w.seen = string(v)
		return answered(true, string(v), err)
	}}
}

// exists asks in one of the ways that tell only whether a key is there.
func (w *linearClient) exists(k int) linearCall {
	way := w.rng.IntN(4)
	return linearCall{keys: []int{k}, inputs: []linearInput{{kind: linearExists}}, reads: way < 2, do: func(ctx context.Context, opts []client.WriteOption) ([]linearOutput, error) {
		var found bool
		var err error
		switch way {
		case 0:
			found, err = w.c.Exists(ctx, w.h.key(k))
		case 1:
			_, err = w.c.TTL(ctx, w.h.key(k))
			if found = err == nil; errors.Is(err, client.ErrNotFound) {
				err = nil
			}
		case 2:
			found, err = w.c.Expire(ctx, w.h.key(k), time.Hour, opts...)
		default:
			found, err = w.c.Persist(ctx, w.h.key(k), opts...)
		}
		return answered(found, "", err)
	}}
}

func (w *linearClient) delete(k int) linearCall {
	blind := w.rng.IntN(3) == 0
	return linearCall{keys: []int{k}, inputs: []linearInput{{kind: linearDelete}}, do: func(ctx context.Context, opts []client.WriteOption) ([]linearOutput, error) {
		if blind {
			_, err := w.c.Delete(ctx, w.h.key(k), append(opts, client.Blind)...)
			return []linearOutput{{}}, err
		}
		found, err := w.c.Delete(ctx, w.h.key(k), opts...)
		return answered(found, "", err)
	}}
}

// text draws a call of one or two keys that hold texts.
func (w *linearClient) text(k int) linearCall {
	c, key, v := w.c, w.h.key(k), w.value()
	one := func(in linearInput, do func(context.Context, []client.WriteOption) (bool, string, error)) linearCall {
		return linearCall{keys: []int{k}, inputs: []linearInput{in}, do: func(ctx context.Context, opts []client.WriteOption) ([]linearOutput, error) {
			return answered(do(ctx, opts))
		}}
	}
	switch x := w.rng.IntN(100); {
	case x < 25:
		return w.get(k)
	case x < 33:
		return w.exists(k)
	case x < 53:
		kind := []linearKind{linearPut, linearPut, linearPutAbsent, linearPutPresent}[w.rng.IntN(4)]
		return one(linearInput{kind: kind, value: v}, func(ctx context.Context, opts []client.WriteOption) (bool, string, error) {
			switch kind {
			case linearPutAbsent:
				opts = append(opts, client.IfAbsent)
			case linearPutPresent:
				opts = append(opts, client.IfPresent)
			}
			stored, err := c.Put(ctx, key, []byte(v), opts...)
			return stored, "", err
		})
	case x < 63:
		return w.delete(k)
	case x < 78:
		in := linearInput{kind: linearSwap, old: w.seen, value: v, gone: w.rng.IntN(5) == 0}
		old, target := []byte(in.old), []byte(v)
		if in.old == "" {
			old, in.gone = nil, false
		}
		if in.gone {
			target = nil
		}
		return one(in, func(ctx context.Context, opts []client.WriteOption) (bool, string, error) {
			swapped, err := c.CompareAndSwap(ctx, key, old, target, opts...)
			if err == nil && swapped {
				w.seen = string(target)
			}
			return swapped, "", err
		})
	case x < 88:
		return one(linearInput{kind: linearAppend, value: v}, func(ctx context.Context, opts []client.WriteOption) (bool, string, error) {
			n, err := c.Append(ctx, key, []byte(v), opts...)
			return true, fmt.Sprint(n), err
		})
	}
	return w.several(k, (k+1)%linearTexts)
}

// several draws a call of two keys.
func (w *linearClient) several(a, b int) linearCall {
	keys := [][]byte{w.h.key(a), w.h.key(b)}
	call := linearCall{keys: []int{a, b}}
	switch w.rng.IntN(3) {
	case 0:
		call.inputs, call.reads = []linearInput{{kind: linearGet}, {kind: linearGet}}, true
		call.do = func(ctx context.Context, _ []client.WriteOption) (outs []linearOutput, err error) {
			values, err := w.c.MGet(ctx, keys)
			for _, v := range values {
				outs = append(outs, linearOutput{known: true, found: v != nil, value: string(v)})
			}
			return outs, err
		}
	case 1:
		pairs := []client.Pair{{Key: keys[0], Value: []byte(w.value())}, {Key: keys[1], Value: []byte(w.value())}}
		call.inputs = []linearInput{{kind: linearPut, value: string(pairs[0].Value)}, {kind: linearPut, value: string(pairs[1].Value)}}
		call.do = func(ctx context.Context, opts []client.WriteOption) ([]linearOutput, error) {
			n, err := w.c.MPut(ctx, pairs, opts...)
			if err == nil && n != 2 {
				err = fmt.Errorf("mput: %d stored of 2", n)
			}
			if err != nil {
				return nil, err
			}
			return []linearOutput{{known: true, found: true}, {known: true, found: true}}, nil
		}
	default:
		call.inputs = []linearInput{{kind: linearDelete}, {kind: linearDelete}}
		call.do = func(ctx context.Context, opts []client.WriteOption) ([]linearOutput, error) {
			n, err := w.c.MDelete(ctx, keys, opts...)
			known := n == 0 || n == 2 // else one of them was there
			return []linearOutput{{known: known, found: n == 2}, {known: known, found: n == 2}}, err
		}
	}
	return call
}

// count draws a call of a counter.
func (w *linearClient) count(k int) linearCall {
	switch x := w.rng.IntN(10); {
	case x < 2:
		return w.get(k)
	case x < 3:
		return w.exists(k)
	case x < 4:
		return w.delete(k)
	}
	delta := 1 + w.rng.Int64N(1000)
	return linearCall{keys: []int{k}, inputs: []linearInput{{kind: linearAdd, delta: delta}}, do: func(ctx context.Context, opts []client.WriteOption) ([]linearOutput, error) {
		sum, err := w.c.Add(ctx, w.h.key(k), delta, opts...)
		return answered(true, fmt.Sprint(sum), err)
	}}
}
