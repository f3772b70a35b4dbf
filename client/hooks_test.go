package client_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"rskv/client"
	"rskv/client/rskvtest"

	"github.com/stretchr/testify/require"
)

// calls notes what hooks are told.
type calls struct {
	mu           sync.Mutex
	begun        []client.Call
	ended        []client.Outcome
	connected    []time.Duration
	disconnected int
}

func (n *calls) hooks() client.Hooks {
	return client.Hooks{
		Call: func(_ context.Context, c client.Call) func(client.Outcome) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.begun = append(n.begun, c)
			if c.Method == "ping" {
				return nil
			}
			return func(o client.Outcome) {
				n.mu.Lock()
				defer n.mu.Unlock()
				n.ended = append(n.ended, o)
			}
		},
		Connected: func(down time.Duration) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.connected = append(n.connected, down)
		},
		Disconnected: func(why error) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.disconnected++
		},
	}
}

// last is the last call, which must have ended.
func (n *calls) last(t *testing.T) (client.Call, client.Outcome) {
	n.mu.Lock()
	defer n.mu.Unlock()
	require.Len(t, n.ended, len(n.begun), "every call that begins has to end")
	return n.begun[len(n.begun)-1], n.ended[len(n.ended)-1]
}

// What could go wrong: a way to make a call passes the hooks by, ends twice or never, or reports
// another outcome than the caller got. A trace with holes leads to the wrong place.
func TestHooks(t *testing.T) {
	s := rskvtest.NewServer(t)
	var n calls
	c := s.Client(t, client.WithHooks(n.hooks()))
	ctx := t.Context()
	k := []byte("k")

	_, err := c.Put(ctx, k, []byte("value"))
	require.NoError(t, err)
	call, outcome := n.last(t)
	require.Equal(t, client.Call{Method: "put", Requests: 1, Bytes: call.Bytes}, call)
	require.Greater(t, call.Bytes, len("kvalue"))
	require.Equal(t, client.Outcome{}, outcome)

	_, err = c.Get(ctx, k)
	require.NoError(t, err)
	call, outcome = n.last(t)
	require.Equal(t, "get", call.Method)
	require.Equal(t, client.Outcome{Bytes: 5}, outcome)
	_, err = c.Get(ctx, []byte("absent"))
	require.ErrorIs(t, err, client.ErrNotFound)
	_, outcome = n.last(t)
	require.NoError(t, outcome.Err)

	_, err = c.Add(ctx, k, 1)
	require.ErrorIs(t, err, client.ErrNotInteger)
	_, outcome = n.last(t)
	require.Equal(t, 1, outcome.Failed)
	require.ErrorIs(t, outcome.Err, client.ErrNotInteger)

	b := c.NewBatch()
	b.Get(k)
	b.Add(k, 1)
	b.Get(k)
	require.NoError(t, b.Do(ctx))
	call, outcome = n.last(t)
	require.Equal(t, client.Call{Method: "get", Requests: 3, Bytes: call.Bytes}, call)
	require.Equal(t, 1, outcome.Failed)
	require.Equal(t, 10, outcome.Bytes)
	require.ErrorIs(t, outcome.Err, client.ErrNotInteger)

	w := c.GetAsync(ctx, k)
	v, err := w.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, "value", string(v))
	call, outcome = n.last(t)
	require.Equal(t, "get", call.Method)
	require.Equal(t, client.Outcome{Bytes: 5}, outcome)
	_, err = w.Wait(ctx) // no second end
	require.Error(t, err)
	n.last(t)

	over, cancel := context.WithCancel(ctx)
	cancel()
	for name, do := range map[string]func() error{
		"call":   func() error { _, err := c.Get(over, k); return err },
		"future": func() error { _, err := c.GetAsync(over, k).Wait(ctx); return err },
		"wait":   func() error { _, err := c.GetAsync(ctx, k).Wait(over); return err },
		"batch":  func() error { b.Get(k); return b.Do(over) },
	} {
		err := do()
		_, outcome = n.last(t)
		require.Equal(t, err, outcome.Err, name)
		if name != "wait" { // there the answer may have come in time
			require.ErrorIs(t, err, context.Canceled, name)
		}
	}
	before := len(n.begun)
	_, err = c.Put(ctx, nil, nil) // refused before it is one
	require.ErrorIs(t, err, client.ErrBadRequest)
	require.Len(t, n.begun, before)
	require.NoError(t, c.Ping(ctx)) // whose hook has nothing to be told
}

// What could go wrong: a lost connection is not told, or told when the program hangs up itself.
func TestHooks_Connections(t *testing.T) {
	s := rskvtest.NewServer(t)
	var n calls
	c := s.Client(t, client.WithHooks(n.hooks()))
	require.NoError(t, c.Ping(t.Context()))
	s.Disconnect()
	require.Eventually(t, func() bool { return c.Ping(t.Context()) == nil && len(n.state()) == 2 }, time.Minute, time.Millisecond)
	require.NoError(t, c.Close())
	state := n.state()
	require.Len(t, state, 2, "connections")
	require.Zero(t, state[0])
	require.Positive(t, state[1])
	require.Equal(t, 1, n.disconnected)
}

func (n *calls) state() []time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.connected
}

// What could go wrong: one key's requests meet in two connections and overtake one another, or a
// sync leaves out a connection.
func TestPool(t *testing.T) {
	s := rskvtest.NewServer(t, rskvtest.Setting("commit_interval", "1h"))
	ctx := t.Context()
	p, err := client.DialPool(ctx, s.Socket(), 4)
	require.NoError(t, err)
	used := map[*client.Client]int{}
	for i := range 100 {
		key := fmt.Append(nil, "k", i)
		c := p.For(key)
		used[c]++
		for n := range 20 {
			require.Same(t, c, p.For(key))
			c.PutAsync(ctx, key, fmt.Append(nil, n))
		}
		v, err := p.For(key).Get(ctx, key)
		require.NoError(t, err)
		require.Equal(t, "19", string(v))
	}
	require.Len(t, used, 4)
	require.ElementsMatch(t, p.Clients(), []*client.Client{p.Next(), p.Next(), p.Next(), p.Next()})
	require.NoError(t, p.Sync(ctx))
	require.NoError(t, p.Close())
	require.NoError(t, s.Crash())
	n, err := s.Client(t).Len(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 100, n, "all connections' writes were synced")
	_, err = p.For([]byte("k")).Get(ctx, []byte("k"))
	require.ErrorIs(t, err, client.ErrClosed)

	_, err = client.DialPool(ctx, s.Socket()+strings.Repeat("x", 10), 2)
	require.ErrorContains(t, err, "connection 1")
}

// What could go wrong: two updates at once lose one, an error changes the key, or a value that
// cannot be read is overwritten.
func TestTyped_Update(t *testing.T) {
	c := rskvtest.New(t)
	ctx := t.Context()
	type account struct{ Balance, Changes int }
	for name, codec := range map[string]client.Codec[account]{"msgpack": client.MsgPack[account](), "json": client.JSON[account]()} {
		accounts := client.NewTyped(c, codec)
		k := []byte(name)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 50 {
					_, err := accounts.Update(ctx, k, func(a account, found bool) (account, error) {
						require.Equal(t, a.Changes > 0, found)
						return account{a.Balance + 2, a.Changes + 1}, nil
					})
					require.NoError(t, err)
				}
			})
		}
		all.Wait()
		a, err := accounts.Get(ctx, k)
		require.NoError(t, err)
		require.Equal(t, account{800, 400}, a)

		_, err = accounts.Update(ctx, k, func(account, bool) (account, error) { return account{}, context.DeadlineExceeded })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = c.Put(ctx, []byte(name+"bad"), []byte("\xc1"))
		require.NoError(t, err)
		_, err = accounts.Update(ctx, []byte(name+"bad"), func(account, bool) (account, error) { panic("called") })
		require.Error(t, err)

		found := map[string]account{}
		bad := 0
		for e, err := range accounts.Scan(ctx, client.ScanOptions{Prefix: k}) {
			if err != nil {
				require.ErrorContains(t, err, name+"bad")
				bad++
				continue
			}
			found[string(e.Key)] = e.Value
		}
		require.Equal(t, map[string]account{name: {800, 400}}, found)
		require.Equal(t, 1, bad)
		for e, err := range accounts.Scan(ctx, client.ScanOptions{Prefix: k, KeysOnly: true}) {
			require.NoError(t, err)
			require.Zero(t, e.Value)
		}
	}
}
