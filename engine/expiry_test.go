package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/engine/internal/record"
	"rskv/ioring"
	"rskv/ioring/iotest"
)

// openTimed opens a store on a device in memory with a clock of the test's.
func openTimed(t testing.TB) (*Store, *Session, *testClock, *iotest.Mem) {
	clock, mem := newTestClock(), newMem()
	s := openOn(t, mem, func(o *Options) { o.Clock = clock })
	return s, s.NewSession(), clock, mem
}

// where puts the records that are there now into a region of the log.
type where struct {
	name string
	move func(t testing.TB, s *Store, n *Session)
}

var regions = []where{
	{"mutable", func(testing.TB, *Store, *Session) {}},
	{"frozen", func(t testing.TB, s *Store, _ *Session) { syncStore(t, s) }},
	{"on disk", func(t testing.TB, s *Store, n *Session) { syncStore(t, s); evict(t, s, n) }},
}

// TestExpiry_Invisible: something is seen of a record that has expired, by any
// operation and in any region of the log, or one that has not is not seen, to the
// millisecond.
func TestExpiry_Invisible(t *testing.T) {
	for _, region := range regions {
		for name, size := range map[string]int{"empty": 0, "counter": 8, "in place": 100, "record": 5000, "chunks": 3*chunkBytes + 7} {
			t.Run(region.name+"/"+name, func(t *testing.T) {
				s, n, clock, _ := openTimed(t)
				value := valueOf(1, 1, size)
				keys := []string{"get", "exists", "ttl", "put", "absent", "present", "delete", "cas", "cas absent", "add", "append", "update", "expire", "hot"}
				for _, key := range keys {
					require.NoError(t, n.one(&Op{Kind: OpPut, Key: []byte(key), Value: []byte("older")}))
					require.NoError(t, n.one(&Op{Kind: OpPut, Key: []byte(key), Value: value, TTL: 1000}))
				}
				region.move(t, s, n)
				clock.move(999)
				for _, key := range keys {
					got, err := n.Get([]byte(key), nil)
					require.NoError(t, err, "it has a millisecond left")
					require.True(t, bytes.Equal(value, got))
					ttl, err := n.TTL([]byte(key))
					require.NoError(t, err)
					require.EqualValues(t, 1, ttl)
				}
				clock.move(1)
				requireNothing(t, n, value)
				n.Close()
				checkStore(t, s)
				require.NoError(t, s.Close())
			})
		}
	}
}

// requireNothing asks every operation for its key, which has expired.
func requireNothing(t *testing.T, n *Session, value []byte) {
	t.Helper()
	never := func(old []byte, found bool) ([]byte, Verdict) {
		if found || old != nil {
			t.Errorf("update: found %t, %d bytes", found, len(old))
		}
		return []byte("new"), Replace
	}
	ops := []Op{
		{Kind: OpGet, Key: []byte("get")},
		{Kind: OpExists, Key: []byte("exists")},
		{Kind: OpTTL, Key: []byte("ttl")},
		{Kind: OpPut, Key: []byte("present"), Value: []byte("new"), If: IfPresent},
		{Kind: OpDelete, Key: []byte("delete")},
		{Kind: OpCompareAndSwap, Key: []byte("cas"), Old: value, Value: []byte("new")},
		{Kind: OpExpire, Key: []byte("expire"), TTL: 1000},
	}
	n.Do(ops)
	for i := range ops {
		require.NoError(t, ops[i].Err, "op %d", i)
		require.False(t, ops[i].Found, "op %d", i)
	}
	_, err := n.Get([]byte("hot"), make([]byte, 0, 2*len(value)+1))
	require.ErrorIs(t, err, ErrNotFound)
	ops = []Op{
		{Kind: OpPut, Key: []byte("put"), Value: []byte("new")},
		{Kind: OpPut, Key: []byte("absent"), Value: []byte("new"), If: IfAbsent},
		{Kind: OpCompareAndSwap, Key: []byte("cas absent"), OldAbsent: true, Value: []byte("new")},
		{Kind: OpAppend, Key: []byte("append"), Value: []byte("new")},
		{Kind: OpUpdate, Key: []byte("update"), Fn: never},
	}
	n.Do(ops)
	for i := range ops {
		require.NoError(t, ops[i].Err, "op %d", i)
		require.Equal(t, ops[i].Kind != OpUpdate, ops[i].Found, "op %d", i)
		got, err := n.Get(ops[i].Key, nil)
		require.NoError(t, err)
		require.Equal(t, "new", string(got), "op %d", i)
		ttl, err := n.TTL(ops[i].Key)
		require.NoError(t, err)
		require.EqualValues(t, -1, ttl, "op %d has inherited an expiry", i)
	}
	sum, err := n.Add([]byte("add"), 5)
	require.NoError(t, err)
	require.EqualValues(t, 5, sum, "a fresh counter")
}

// TestExpiry_Kept: an operation changes the expiry of a key that it should keep, or
// keeps one that it should clear or change, in any region and for values of any
// size.
func TestExpiry_Kept(t *testing.T) {
	update := func(old []byte, _ bool) ([]byte, Verdict) { return append(bytes.Clone(old), 'u'), Replace }
	cases := []struct {
		name string
		op   Op
		want int64 // ms left; -1: none
	}{
		{"put", Op{Kind: OpPut, Value: []byte("12345678")}, -1},
		{"put with", Op{Kind: OpPut, Value: []byte("12345678"), TTL: 70}, 70},
		{"put if", Op{Kind: OpPut, Value: []byte("x"), If: IfPresent}, -1},
		{"put if with", Op{Kind: OpPut, Value: []byte("x"), If: IfPresent, TTL: 80}, 80},
		{"put in chunks", Op{Kind: OpPut, Value: valueOf(2, 2, 100_000), TTL: 90}, 90},
		{"refused", Op{Kind: OpPut, Value: []byte("x"), If: IfAbsent, TTL: 80}, 900},
		{"cas refused", Op{Kind: OpCompareAndSwap, Old: []byte("wrong"), Value: []byte("x"), TTL: 80}, 900},
		{"append", Op{Kind: OpAppend, Value: []byte("tail")}, 900},
		{"append nothing", Op{Kind: OpAppend}, 900},
		{"append with", Op{Kind: OpAppend, Value: []byte("tail"), TTL: 60}, 60},
		{"append to chunks", Op{Kind: OpAppend, Value: valueOf(2, 2, 100_000)}, 900},
		{"update", Op{Kind: OpUpdate, Fn: update}, 900},
		{"update with", Op{Kind: OpUpdate, Fn: update, TTL: 50}, 50},
		{"expire", Op{Kind: OpExpire, TTL: 5000}, 5000},
		{"expire sooner", Op{Kind: OpExpire, TTL: 1}, 1},
		{"persist", Op{Kind: OpExpire}, -1},
	}
	for _, region := range regions {
		for _, size := range []int{8, 900, 5000, 2*chunkBytes + 1} {
			s, n, clock, _ := openTimed(t)
			value := valueOf(1, 1, size)
			for _, c := range cases {
				require.NoError(t, n.one(&Op{Kind: OpPut, Key: []byte(c.name), Value: value, TTL: 1000}))
			}
			cas := func() Op {
				return Op{Kind: OpCompareAndSwap, Key: []byte("cas"), Old: bytes.Clone(value), Value: []byte("swapped")}
			}
			require.NoError(t, n.one(&Op{Kind: OpPut, Key: []byte("cas"), Value: value, TTL: 1000}))
			region.move(t, s, n)
			clock.move(100)
			for _, c := range cases {
				op := c.op
				op.Key = []byte(c.name)
				require.NoError(t, n.one(&op))
				ttl, err := n.TTL(op.Key)
				require.NoError(t, err, "%s, %d bytes, %s", c.name, size, region.name)
				require.Equal(t, c.want, ttl, "%s, %d bytes, %s", c.name, size, region.name)
				if op.Kind == OpExpire {
					got, err := n.Get(op.Key, nil)
					require.NoError(t, err)
					require.True(t, bytes.Equal(value, got), "the value has changed")
				}
			}
			op := cas()
			require.NoError(t, n.one(&op))
			require.True(t, op.Found)
			ttl, err := n.TTL(op.Key)
			require.NoError(t, err)
			require.EqualValues(t, -1, ttl)
			n.Close()
			checkStore(t, s)
			require.NoError(t, s.Close())
		}
	}
}

// TestExpiry_Add: a counter's expiry is not kept, or not set, in place or not.
func TestExpiry_Add(t *testing.T) {
	for _, region := range regions {
		s, n, clock, _ := openTimed(t)
		for _, key := range []string{"kept", "renewed", "given"} {
			op := Op{Kind: OpAdd, Key: []byte(key), Delta: 7, TTL: 1000}
			if key == "given" {
				op.TTL = 0
			}
			require.NoError(t, n.one(&op))
		}
		region.move(t, s, n)
		clock.move(10)
		for key, c := range map[string][2]int64{"kept": {0, 990}, "renewed": {500, 500}, "given": {30, 30}} {
			op := Op{Kind: OpAdd, Key: []byte(key), Delta: 1, TTL: c[0]}
			require.NoError(t, n.one(&op))
			require.EqualValues(t, 8, op.Int)
			ttl, err := n.TTL([]byte(key))
			require.NoError(t, err)
			require.Equal(t, c[1], ttl, "%s, %s", key, region.name)
		}
		n.Close()
		require.NoError(t, s.Close())
	}
}

// TestExpiry_BadTTL: a time to live that means nothing is taken for one.
func TestExpiry_BadTTL(t *testing.T) {
	s, n, clock, _ := openTimed(t)
	for _, op := range []Op{
		{Kind: OpPut, TTL: -1}, {Kind: OpPut, TTL: MaxTTL + 1}, {Kind: OpExpire, TTL: -1}, {Kind: OpExists, TTL: 1},
		{Kind: OpDelete, TTL: 1}, {Kind: OpCompareAndSwap, OldAbsent: true, NewAbsent: true, TTL: 1},
	} {
		op.Key = []byte("key")
		require.ErrorIs(t, n.one(&op), ErrBadTTL, "%+v", op)
	}
	require.NoError(t, n.one(&Op{Kind: OpPut, Key: []byte("key"), TTL: MaxTTL}))
	clock.move(1)
	ttl, err := n.TTL([]byte("key"))
	require.NoError(t, err)
	require.EqualValues(t, MaxTTL-1, ttl)
	_, err = n.TTL([]byte("none"))
	require.ErrorIs(t, err, ErrNotFound)
	n.Close()
	require.NoError(t, s.Close())
}

// TestExpiry_TooLate: an operation that relied on a record which expires while it
// works makes the key be there again after somebody has seen that it is gone.
func TestExpiry_TooLate(t *testing.T) {
	ops := map[string]Op{
		"expire": {Kind: OpExpire, TTL: 1000},
		"cas":    {Kind: OpCompareAndSwap, Old: []byte("value"), Value: []byte("swapped")},
		"put if": {Kind: OpPut, If: IfPresent, Value: []byte("swapped")},
		"update": {Kind: OpUpdate, TTL: 1000, Fn: func(old []byte, found bool) ([]byte, Verdict) {
			if !found {
				return nil, Keep
			}
			return []byte("swapped"), Replace
		}},
	}
	reached := 0
	for _, region := range regions {
		for name, op := range ops {
			for at := 1; at <= 3; at++ { // the operation's look at the clock before which it expires
				s, n, clock, _ := openTimed(t)
				key := []byte("key")
				require.NoError(t, n.one(&Op{Kind: OpPut, Key: key, Value: []byte("older")}))
				require.NoError(t, n.one(&Op{Kind: OpPut, Key: key, Value: []byte("value"), TTL: 10}))
				region.move(t, s, n)
				var looks atomic.Int64
				other := s.NewSession()
				gone := make(chan bool, 1)
				first := false // the other has looked before the operation goes on
				look := func() {
					if !calledBy("TestExpiry_TooLate") || looks.Add(1) != int64(at) {
						return // a task, or the other, or another look
					}
					clock.move(10)
					seen := background(func() {
						found, err := other.Exists(key)
						gone <- err == nil && !found
					})
					select {
					case <-seen:
						first = true
					case <-time.After(20 * time.Millisecond): // it waits for this operation, or the machine is busy
					}
				}
				clock.look.Store(&look)
				op.Key = key
				require.NoError(t, n.one(&op))
				clock.look.Store(nil)
				if looks.Load() >= int64(at) {
					reached++
					switch wasGone := <-gone; {
					case wasGone:
						found, err := n.Exists(key)
						require.NoError(t, err)
						require.False(t, op.Found && first || found, "%s, %s, look %d: it was gone, and is there again", name, region.name, at)
					default:
						require.True(t, op.Found)
					}
				}
				other.Close()
				n.Close()
				checkStore(t, s)
				require.NoError(t, s.Close())
			}
		}
	}
	require.GreaterOrEqual(t, reached, len(regions)*len(ops), "an operation that does not look at the clock")
}

// TestExpiry_Compaction: compaction keeps what has expired, loses the expiry of
// what has not, or brings back the older record that an expired one has hidden.
func TestExpiry_Compaction(t *testing.T) {
	s, n, clock, mem := openTimed(t)
	sizes := []int{8, 3000, chunkBytes + 100}
	for i, size := range sizes {
		for _, ttl := range []int64{0, 1000, 5000} {
			key := fmt.Appendf(nil, "key %d %d", i, ttl)
			require.NoError(t, n.Put(key, []byte("older")))
			require.NoError(t, n.one(&Op{Kind: OpPut, Key: key, Value: valueOf(uint64(i), 1, size), TTL: ttl}))
		}
	}
	syncStore(t, s)
	evict(t, s, n)
	syncStore(t, s)
	clock.move(1000)
	check := func(s *Store, n *Session) {
		for i, size := range sizes {
			for ttl, left := range map[int64]int64{0: -1, 5000: 4000} {
				key := fmt.Appendf(nil, "key %d %d", i, ttl)
				got, err := n.Get(key, nil)
				require.NoError(t, err)
				require.NoError(t, valueIs(got, uint64(i), 1, size))
				ms, err := n.TTL(key)
				require.NoError(t, err)
				require.Equal(t, left, ms)
			}
			_, err := n.Get(fmt.Appendf(nil, "key %d %d", i, 1000), nil)
			require.ErrorIs(t, err, ErrNotFound)
		}
	}
	res, err := s.Compact(context.Background(), CompactOptions{})
	require.NoError(t, err)
	check(s, n)
	require.Greater(t, res.Copied, int64(0))
	require.Zero(t, recordsOf(t, s, "key 0 1000")+recordsOf(t, s, "key 2 1000"), "what has expired is still there")
	n.Close()

	// The clock of the machine is behind after a crash: nothing comes back.
	clock.wall.Add(-1_000_000)
	again := openOn(t, mem.CrashImage(iotest.CrashOptions{}), func(o *Options) { o.Clock = clock })
	n2 := again.NewSession()
	check(again, n2)
	n2.Close()
	require.NoError(t, again.Close())
	require.NoError(t, s.Close())
}

// recordsOf counts the records of a key in the log that counts.
func recordsOf(t *testing.T, s *Store, key string) (n int) {
	t.Helper()
	for _, span := range s.manifestUntil(s.log.Durable()).Spans {
		r := s.newScan(s.mu.manifest, span, s.log.Begin())
		for r.at < span.End {
			_, w0, w1, body, err := r.next()
			require.NoError(t, err)
			if record.KindOf(w1) != record.System && string(body[:record.KeyLen(w0)]) == key {
				n++
			}
		}
		r.close()
	}
	return n
}

// TestExpiry_Scan: a scan returns what has expired, or misses a key that was given
// longer to live after the scan began and was there all the time.
func TestExpiry_Scan(t *testing.T) {
	s, n, clock, _ := openTimed(t)
	for i := range 100 {
		require.NoError(t, n.one(&Op{Kind: OpPut, Key: key64(i), Value: valueOf(uint64(i), 1, 100), TTL: 1000 * int64(i%4)}))
	}
	page, err := s.Scan(context.Background(), ScanOptions{Count: 10})
	require.NoError(t, err)
	require.Len(t, page.Entries, 10)
	for i := range 100 {
		if i%4 == 1 {
			found, err := n.Expire(key64(i), 10_000)
			require.NoError(t, err)
			require.True(t, found)
		}
	}
	clock.move(2000)
	seen := map[string]bool{}
	for {
		for _, e := range page.Entries {
			require.False(t, seen[string(e.Key)], "twice")
			seen[string(e.Key)] = true
		}
		if page.Next == nil {
			break
		}
		page, err = s.Scan(context.Background(), ScanOptions{Count: 10, Cursor: page.Next})
		require.NoError(t, err)
	}
	for i := range 100 {
		if i%4 != 2 {
			require.True(t, seen[string(key64(i))], "key %d was there all the time", i)
		} else {
			require.True(t, i < 11 || !seen[string(key64(i))], "key %d has expired", i)
		}
	}
	count, err := s.LenExact(context.Background())
	require.NoError(t, err)
	require.EqualValues(t, 75, count.Keys)
	n.Close()
	require.NoError(t, s.Close())
}

// TestExpiry_Restart: a restart, a backup or a salvage loses an expiry, or brings
// back what had expired, on a machine whose clock is behind.
func TestExpiry_Restart(t *testing.T) {
	for _, back := range []int64{0, 3_600_000} {
		s, n, clock, mem := openTimed(t)
		for i := range 50 {
			require.NoError(t, n.Put(key64(i), []byte("older")))
			size := 100
			if i%10 == 4 {
				size = 2 * chunkBytes
			}
			require.NoError(t, n.one(&Op{Kind: OpPut, Key: key64(i), Value: valueOf(uint64(i), 1, size), TTL: 1000 * int64(i%3)}))
		}
		clock.move(1500)
		require.NoError(t, n.Put([]byte("last"), []byte("the commit carries the time")))
		syncStore(t, s)
		var stream bytes.Buffer
		_, err := s.Backup(context.Background(), &stream, nil)
		require.NoError(t, err)
		n.Close()
		clock.wall.Add(-back)
		open := func(dev ioring.Device) {
			s := openOn(t, dev, func(o *Options) { o.Clock = clock })
			n := s.NewSession()
			for i := range 50 {
				ttl, err := n.TTL(key64(i))
				if i%3 == 1 {
					require.ErrorIs(t, err, ErrNotFound)
					continue
				}
				require.NoError(t, err)
				require.EqualValues(t, map[int]int64{0: -1, 2: 500}[i%3], ttl)
			}
			n.Close()
			require.NoError(t, s.Close())
		}
		image := mem.CrashImage(iotest.CrashOptions{})
		open(mem.CrashImage(iotest.CrashOptions{}))
		salvaged := newMem()
		_, err = Salvage(VerifyOptions{Device: image}, Options{Device: keepOpen{salvaged}, Memory: MemoryMin, Clock: clock}, nil)
		require.NoError(t, err)
		open(salvaged)
		require.NoError(t, s.Close())
		restored := newMem()
		_, err = Restore(&stream, Options{Device: keepOpen{restored}})
		require.NoError(t, err)
		open(restored)
	}
}

// TestClock: the clock of a store goes back, does not follow what it should, or
// follows what it should not.
func TestClock(t *testing.T) {
	clock := newTestClock()
	wall := clock.Wall()
	opt := Options{Clock: clock}
	require.Error(t, errors.Join(opt.check()))
	var c storeClock
	c.init(&opt, 0)
	require.Equal(t, wall, c.now())
	clock.move(1)
	require.Equal(t, wall+1, c.now())

	c.init(&opt, wall+5000)
	require.Equal(t, wall+5000, c.now(), "below the last commit")
	clock.move(10)
	require.Equal(t, wall+5010, c.now())
	c.follow()
	require.Equal(t, wall+5010, c.now(), "it has followed the wall back")

	c.init(&opt, 0)
	now := c.now()
	clock.wall.Add(999)
	c.follow()
	require.Equal(t, now, c.now(), "less than a step")
	clock.wall.Add(1)
	c.follow()
	require.Equal(t, now+1000, c.now(), "a machine that was suspended")
	clock.wall.Add(time.Hour.Milliseconds() + 1)
	c.follow()
	require.Equal(t, now+1000, c.now(), "a jump of more than an hour")
	c.raise(now + 500)
	require.Equal(t, now+1000, c.now())
	c.raise(now + 1500)
	require.Equal(t, now+1500, c.now())
}

// TestClock_Fresh: who asks for the time of a key does not see that the machine was
// asleep, or asks for the wall clock each time.
func TestClock_Fresh(t *testing.T) {
	clock := newTestClock()
	opt := Options{Clock: clock}
	require.Error(t, errors.Join(opt.check()))
	var c storeClock
	c.init(&opt, 0)
	now := c.fresh()
	require.Equal(t, clock.Wall(), now)
	clock.wall.Add(5000)
	require.Equal(t, now, c.fresh(), "it has just been looked at")
	clock.move(clockLook.Milliseconds())
	require.Equal(t, now+6000, c.fresh())
	require.EqualValues(t, 5000, c.followed.Load())
	c.follow()
	require.Zero(t, c.followed.Load(), "to be reported once")

	clock.move(clockLook.Milliseconds())
	clock.wall.Add(2 * time.Hour.Milliseconds())
	require.Equal(t, now+7000, c.fresh(), "a jump of more than an hour")
	clock.wall.Add(-4 * time.Hour.Milliseconds())
	clock.move(clockLook.Milliseconds())
	require.Equal(t, now+8000, c.fresh(), "it has followed the wall back")
}

// TestExpiry_Superseded: who has found a record with an expiry just before a newer one is
// linked, which takes over the count of the key, takes it for expired: a get finds nothing,
// a delete says that there was nothing.
func TestExpiry_Superseded(t *testing.T) {
	s, n, clock, _ := openTimed(t)
	key := []byte("k")
	require.NoError(t, n.one(&Op{Kind: OpPut, Key: key, Value: []byte("older"), TTL: 1000}))
	syncStore(t, s) // it is frozen, and written
	require.NoError(t, n.enter(false))
	var at place
	n.find(record.Hash(s.seed, key), key, &at)
	other := s.NewSession()
	require.NoError(t, other.one(&Op{Kind: OpAppend, Key: key, Value: []byte(" and newer")}))
	w1 := record.Load1(at.ptr)
	require.NotZero(t, w1&record.Swept)
	require.False(t, n.dead(&at, w1))
	clock.move(1000)
	require.True(t, n.dead(&at, w1), "by the time it is")
	n.exit()
	other.Close()
	n.Close()
	require.NoError(t, s.Close())
}
