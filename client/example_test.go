package client_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"rskv/client"
	"rskv/ipc"

	"github.com/stretchr/testify/require"
)

// must ends an example that went wrong; a program looks at its errors.
func must[T any](v T, err error) T {
	if err != nil {
		log.Panic(err)
	}
	return v
}

// dialed is what every example begins with.
func dialed() (context.Context, *client.Client) {
	ctx := context.Background()
	return ctx, must(client.Dial(ctx, client.DefaultSocket()))
}

func ExampleDial() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, client.DefaultSocket())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	if _, err := c.Put(ctx, []byte("greeting"), []byte("hello")); err != nil {
		log.Fatal(err)
	}
	value, err := c.Get(ctx, []byte("greeting"))
	fmt.Printf("%s %v\n", value, err)
	// Output: hello <nil>
}

func ExampleDial_options() {
	ctx := context.Background()
	c, err := client.Dial(ctx, client.DefaultSocket(),
		client.WithRetryFor(time.Minute),                       // a daemon that is upgraded is waited for
		client.WithBackoff(10*time.Millisecond, 2*time.Second), // between attempts to connect again
		client.WithMaxInFlight(4096, 16<<20),                   // callers wait beyond that
		client.WithSession(), client.WithKept(100_000, 16<<20), // exactly once, within so much memory
		client.WithSessionLoss(func(l client.SessionLoss) { log.Print(l.Err) }),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Println(c.Ping(ctx))
	// Output: <nil>
}

func ExampleClient_Get() {
	ctx, c := dialed()
	defer c.Close()
	_, err := c.Get(ctx, []byte("no such key"))
	fmt.Println(errors.Is(err, client.ErrNotFound))

	must(c.Put(ctx, []byte("color"), []byte("blue")))
	buf := make([]byte, 0, 64)
	buf, err = c.GetInto(ctx, buf, []byte("color")) // no allocation if it fits
	fmt.Printf("%s %v\n", buf, err)
	fmt.Println(c.Exists(ctx, []byte("color")))
	// Output:
	// true
	// blue <nil>
	// true <nil>
}

func ExampleClient_Put() {
	ctx, c := dialed()
	defer c.Close()
	key := []byte("config")
	fmt.Println(c.Put(ctx, key, []byte("v1")))
	fmt.Println(c.Put(ctx, key, []byte("v2"), client.IfAbsent))  // not stored: it is there
	fmt.Println(c.Put(ctx, key, []byte("v3"), client.IfPresent)) // stored
	fmt.Println(c.Put(ctx, key, []byte("v4"), client.Sync))      // and on stable storage
	// Output:
	// true <nil>
	// false <nil>
	// true <nil>
	// true <nil>
}

func ExampleClient_Delete() {
	ctx, c := dialed()
	defer c.Close()
	must(c.Put(ctx, []byte("draft"), []byte("...")))
	fmt.Println(c.Delete(ctx, []byte("draft")))
	fmt.Println(c.Delete(ctx, []byte("draft")))               // was not there
	fmt.Println(c.Delete(ctx, []byte("draft"), client.Blind)) // does not look, and reports false
	// Output:
	// true <nil>
	// false <nil>
	// false <nil>
}

func ExampleClient_CompareAndSwap() {
	ctx, c := dialed()
	defer c.Close()
	lock, me := []byte("lock"), []byte("worker 7")
	fmt.Println(c.CompareAndSwap(ctx, lock, nil, me, client.Sync)) // nil: must be absent
	fmt.Println(c.CompareAndSwap(ctx, lock, nil, []byte("worker 8")))
	fmt.Println(c.CompareAndSwap(ctx, lock, me, nil)) // nil: delete
	// Output:
	// true <nil>
	// false <nil>
	// true <nil>
}

func ExampleClient_Add() {
	ctx, c := dialed()
	defer c.Close()
	fmt.Println(c.Add(ctx, []byte("visits"), 41))
	fmt.Println(c.Add(ctx, []byte("visits"), 1))
	must(c.Put(ctx, []byte("text"), []byte("abc")))
	_, err := c.Add(ctx, []byte("text"), 1)
	fmt.Println(errors.Is(err, client.ErrNotInteger))
	// Output:
	// 41 <nil>
	// 42 <nil>
	// true
}

func ExampleClient_Append() {
	ctx, c := dialed()
	defer c.Close()
	fmt.Println(c.Append(ctx, []byte("lines"), []byte("one\n")))
	fmt.Println(c.Append(ctx, []byte("lines"), []byte("two\n")))
	// Output:
	// 4 <nil>
	// 8 <nil>
}

func ExampleClient_Expire() {
	ctx, c := dialed()
	defer c.Close()
	session := []byte("session/7")
	must(c.Put(ctx, session, []byte("ada"), client.TTL(time.Millisecond)))
	for must(c.Exists(ctx, session)) {
	}
	must(c.Put(ctx, session, []byte("ada"), client.TTL(30*time.Minute)))
	fmt.Println(c.Expire(ctx, session, time.Hour))
	left := must(c.TTL(ctx, session))
	fmt.Println(left > 59*time.Minute, left <= time.Hour)
	fmt.Println(c.Persist(ctx, session)) // there to stay
	fmt.Println(must(c.TTL(ctx, session)) == client.NoExpiry)
	_, err := c.TTL(ctx, []byte("no such key"))
	fmt.Println(errors.Is(err, client.ErrNotFound))
	// Output:
	// true <nil>
	// true true
	// true <nil>
	// true
	// true
}

func ExampleClient_ExpireAsync() {
	ctx, c := dialed()
	defer c.Close()
	must(c.Put(ctx, []byte("cached"), []byte("...")))
	fmt.Println(c.ExpireAsync(ctx, []byte("cached"), time.Minute).Wait(ctx))
	b := c.NewBatch()
	b.Expire([]byte("cached"), 2*time.Minute)
	left := b.TTL([]byte("cached"))
	if err := b.Do(ctx); err != nil {
		log.Fatal(err)
	}
	d, err := b.Left(left)
	fmt.Println(d > time.Minute, err)
	// Output:
	// true <nil>
	// true <nil>
}

func ExampleClient_MGet() {
	ctx, c := dialed()
	defer c.Close()
	fmt.Println(c.MPut(ctx, []client.Pair{
		{Key: []byte("m/a"), Value: []byte("1")},
		{Key: []byte("m/b"), Value: []byte("2")},
	}))
	keys := [][]byte{[]byte("m/a"), []byte("m/none"), []byte("m/b")}
	values := must(c.MGet(ctx, keys))
	fmt.Printf("%q %v\n", values, values[1] == nil)
	fmt.Println(c.MDelete(ctx, keys))
	// Output:
	// 2 <nil>
	// ["1" "" "2"] true
	// 2 <nil>
}

func ExampleClient_Scan() {
	ctx, c := dialed()
	defer c.Close()
	for _, name := range []string{"user/ada", "user/bob", "group/x"} {
		must(c.Put(ctx, []byte(name), []byte("...")))
	}
	var found []string
	for pair, err := range c.Scan(ctx, client.ScanOptions{Prefix: []byte("user/"), KeysOnly: true}) {
		if err != nil {
			log.Fatal(err)
		}
		found = append(found, string(pair.Key))
	}
	slices.Sort(found) // without the daemon's setting ordered they come in no order
	fmt.Println(found)
	// Output: [user/ada user/bob]
}

// With the daemon's setting ordered, a key that ends in a time makes a log of events: here the last two
// before noon.
func ExampleClient_Scan_ordered() {
	ctx, c := dialed()
	defer c.Close()
	for _, at := range []string{"09:30", "10:15", "11:45", "12:20"} {
		must(c.Put(ctx, []byte("event/"+at), []byte("at "+at)))
	}
	n := 0
	for pair, err := range c.Scan(ctx, client.ScanOptions{Prefix: []byte("event/"), To: []byte("event/12"), Reverse: true, Count: 2}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", pair.Value)
		if n++; n == 2 {
			break
		}
	}
	// Output:
	// at 11:45
	// at 10:15
}

func ExampleClient_ScanPage() {
	ctx, c := dialed()
	defer c.Close()
	for i := range 10 {
		must(c.Put(ctx, fmt.Append(nil, "page/", i), []byte("...")))
	}
	opt := client.ScanOptions{Prefix: []byte("page/"), KeysOnly: true, Count: 4}
	n, pages := 0, 0
	for cursor := []byte(nil); ; pages++ { // a cursor may be kept, and used on any connection
		pairs, next, err := c.ScanPage(ctx, opt, cursor)
		if err != nil {
			log.Fatal(err)
		}
		n += len(pairs)
		if cursor = next; cursor == nil {
			break
		}
	}
	fmt.Println(n, "keys", pages >= 2)
	// Output: 10 keys true
}

func ExampleClient_Len() {
	ctx, c := dialed()
	defer c.Close()
	before := must(c.LenExact(ctx)) // counts by a scan; Len asks counters
	must(c.Put(ctx, []byte("one more"), nil))
	fmt.Println(must(c.Len(ctx)) - before)
	// Output: 1
}

func ExampleBatch() {
	ctx, c := dialed()
	defer c.Close()
	b := c.NewBatch()
	b.Put([]byte("b"), []byte("value"))
	got := b.Get([]byte("b"))
	counted := b.Add([]byte("b/n"), 5)
	failed := b.Add([]byte("b"), 1) // fails by itself
	if err := b.Do(ctx); err != nil {
		log.Fatal(err)
	}
	value, err := b.Value(got)
	fmt.Printf("%s %v\n", value, err)
	fmt.Println(b.Int(counted))
	fmt.Println(errors.Is(b.Err(failed), client.ErrNotInteger))

	b.Reset() // the memory is kept for the next round
	for i := range 100 {
		b.Exists(fmt.Append(nil, "b/", i))
	}
	if err := b.Do(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println(b.Bool(99))
	// Output:
	// value <nil>
	// 5 <nil>
	// true
	// false <nil>
}

func ExampleFuture() {
	ctx, c := dialed()
	defer c.Close()
	var waiting []*client.Future[int64]
	for i := range 3 {
		waiting = append(waiting, c.AddAsync(ctx, []byte("f/n"), int64(i)))
	}
	stored := c.PutAsync(ctx, []byte("f"), []byte("v"))
	value := c.GetAsync(ctx, []byte("f"))
	for _, w := range waiting {
		fmt.Println(w.Wait(ctx))
	}
	fmt.Println(stored.Wait(ctx))
	v, err := value.Wait(ctx)
	fmt.Printf("%s %v\n", v, err)
	fmt.Println(c.AppendAsync(ctx, []byte("f"), []byte("w")).Wait(ctx))
	fmt.Println(c.CompareAndSwapAsync(ctx, []byte("f"), []byte("vw"), []byte("x")).Wait(ctx))
	fmt.Println(c.DeleteAsync(ctx, []byte("f")).Wait(ctx))
	// Output:
	// 0 <nil>
	// 1 <nil>
	// 3 <nil>
	// true <nil>
	// v <nil>
	// 2 <nil>
	// true <nil>
	// true <nil>
}

func ExampleTyped() {
	type User struct {
		Name  string
		Email string
	}
	ctx, c := dialed()
	defer c.Close()
	users := client.NewTyped(c, client.MsgPack[User]())
	must(users.Put(ctx, []byte("typed/1"), User{"Ada", "ada@example.org"}))
	fmt.Println(users.Get(ctx, []byte("typed/1")))
	old, renamed := User{"Ada", "ada@example.org"}, User{"Ada Lovelace", "ada@example.org"}
	fmt.Println(users.CompareAndSwap(ctx, []byte("typed/1"), &old, &renamed))
	for user, err := range users.Scan(ctx, client.ScanOptions{Prefix: []byte("typed/")}) {
		fmt.Printf("%s %v %v\n", user.Key, user.Value, err)
	}
	// Output:
	// {Ada ada@example.org} <nil>
	// true <nil>
	// typed/1 {Ada Lovelace ada@example.org} <nil>
}

func ExampleTyped_Update() {
	ctx, c := dialed()
	defer c.Close()
	carts := client.NewTyped(c, client.JSON[map[string]int]())
	add := func(cart map[string]int, found bool) (map[string]int, error) {
		if !found {
			cart = map[string]int{}
		}
		cart["apple"]++
		return cart, nil
	}
	must(carts.Update(ctx, []byte("cart"), add))
	fmt.Println(carts.Update(ctx, []byte("cart"), add)) // nobody's change is lost
	text := must(c.Get(ctx, []byte("cart")))
	fmt.Println(string(text))
	// Output:
	// map[apple:2] <nil>
	// {"apple":2}
}

func ExampleWithSession() {
	ctx := context.Background()
	c := must(client.Dial(ctx, client.DefaultSocket(), client.WithSession()))
	for range 10 { // each counts once, whatever becomes of the connection and of the daemon
		must(c.Add(ctx, []byte("s/n"), 1))
	}
	must(c.Sync(ctx)) // Close ends the promise
	s := c.Session()
	fmt.Println(s.Written, s.Durable)
	c.Close()

	// Another process may go on with it, if this one is gone.
	c = must(client.Dial(ctx, client.DefaultSocket(), client.WithResume(s.ID)))
	defer c.Close()
	fmt.Println(c.Session().Applied)
	// Output:
	// 10 10
	// 10
}

func ExampleClient_Sync() {
	ctx, c := dialed()
	defer c.Close()
	for i := range 100 {
		c.PutAsync(ctx, fmt.Append(nil, "sync/", i), []byte("v"))
	}
	_, err := c.Sync(ctx) // everything before it on this connection is on stable storage
	fmt.Println(err)
	// Output: <nil>
}

func ExampleClient_Hello() {
	ctx, c := dialed()
	defer c.Close()
	h := must(c.Hello(ctx, "example")) // a name for the daemon's logs
	fmt.Println(h.Server, h.Protocol, h.Limits.Key, h.Limits.Value)
	// Output: rskvd 1 65535 16777216
}

func ExamplePool() {
	ctx := context.Background()
	p, err := client.DialPool(ctx, client.DefaultSocket(), 4)
	if err != nil {
		log.Fatal(err)
	}
	defer p.Close()
	key := []byte("pooled")
	must(p.For(key).Put(ctx, key, []byte("v")))
	value := must(p.For(key).Get(ctx, key)) // the same connection: it sees its own write
	fmt.Println(string(value), p.Next().Ping(ctx), p.Sync(ctx), len(p.Clients()))
	// Output: v <nil> <nil> 4
}

func ExampleHooks() {
	ctx := context.Background()
	c := must(client.Dial(ctx, client.DefaultSocket(), client.WithHooks(client.Hooks{
		Call: func(_ context.Context, call client.Call) func(client.Outcome) {
			begin := time.Now()
			return func(o client.Outcome) {
				took := time.Since(begin) // goes into a histogram
				fmt.Println(call.Method, call.Requests, took > 0, o.Failed)
			}
		},
		Connected: func(down time.Duration) { fmt.Println("connected", down) },
	})))
	defer c.Close()
	must(c.Put(ctx, []byte("hooked"), []byte("v")))
	// Output:
	// connected 0s
	// put 1 true 0
}

func ExampleError() {
	ctx, c := dialed()
	defer c.Close()
	_, err := c.Put(ctx, []byte("k"), make([]byte, 16<<20+1))
	var refused *client.Error
	switch {
	case errors.Is(err, client.ErrBusy), errors.Is(err, client.ErrDiskFull):
		fmt.Println("try again later")
	case errors.Is(err, client.ErrTooLarge):
		fmt.Println("too large")
	}
	fmt.Println(errors.As(err, &refused), refused.Code)
	// Output:
	// too large
	// true ValueTooLarge
}

func ExampleClient_Stats() {
	ctx, c := dialed()
	defer c.Close()
	stats := must(c.Stats(ctx))
	fmt.Println(stats["io_backend"], stats["health"])
	// Output: memory ok
}

func ExampleClient_SetConfig() {
	ctx, c := dialed()
	defer c.Close()
	before := must(c.Config(ctx))
	after := must(c.SetConfig(ctx, map[string]string{"log_level": "warn"}))
	fmt.Println(before["log_level"], after["log_level"])
	_, err := c.SetConfig(ctx, map[string]string{"page_size": "1MiB"})
	fmt.Println(err)
	// Output:
	// info warn
	// BadRequest: config: page_size: cannot be changed while the daemon runs
}

func ExampleClient_Checkpoint() {
	ctx, c := dialed()
	defer c.Close()
	taken := must(c.Checkpoint(ctx, client.CheckpointOptions{Kind: ipc.CheckpointFull, Cookie: []byte("nightly")}))
	list := must(c.Checkpoints(ctx))
	fmt.Println(list[0].Version == taken.Version, string(list[0].Cookie))
	// Output: true nightly
}

func ExampleClient_Backup() {
	ctx, c := dialed()
	defer c.Close()
	must(c.Put(ctx, []byte("backed up"), []byte("v")))
	b, err := c.Backup(ctx, io.Discard, func(done, total int64) { /* a progress bar */ }) // to a file, a pipe, ...
	fmt.Println(b.Keys > 0, b.Bytes > 0, err)
	// Output: true true <nil>
}

func ExampleClient_Scrub() {
	ctx, c := dialed()
	defer c.Close()
	if err := c.Scrub(ctx, client.ScrubRateDefault); err != nil && !errors.Is(err, client.ErrBusy) {
		log.Fatal(err)
	}
	s := must(c.ScrubStatus(ctx))
	for ; s.State == "running"; s = must(c.ScrubStatus(ctx)) {
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Println(s.State, s.Damages)
	fmt.Println(c.StopScrub(ctx)) // it has ended by itself
	// Output:
	// done 0
	// false <nil>
}

func ExampleClient_Compact() {
	ctx, c := dialed()
	defer c.Close()
	done, err := c.Compact(ctx, 0) // the daemon does it by itself, too
	fmt.Println(done.Scanned >= done.Copied, err)
	// Output: true <nil>
}

func ExampleClient_Tasks() {
	ctx, c := dialed()
	defer c.Close()
	if err := c.StopTask(ctx, "compact"); err != nil {
		log.Fatal(err)
	}
	for _, task := range must(c.Tasks(ctx)) {
		if task.Name == "compact" {
			fmt.Println(task.Name, task.Stopped)
		}
	}
	fmt.Println(c.StartTask(ctx, "compact"), c.RunTask(ctx, "checkpoint"))
	// Output:
	// compact true
	// <nil> <nil>
}

func ExampleClient_Health() {
	ctx, c := dialed()
	defer c.Close()
	h := must(c.Health(ctx))
	fmt.Println(h.State == client.StateOK)
	// Output: true
}

func ExampleClient_SlowLog() {
	ctx, c := dialed()
	defer c.Close()
	must(c.Put(ctx, []byte("slow"), []byte("v"), client.Sync))
	for _, r := range must(c.SlowLog(ctx, 1)) { // of this daemon, whose slowlog_threshold is very low
		fmt.Println(r.Method, r.Took > 0)
	}
	must(c.ResetSlowLog(ctx))
	// Output: put true
}

func ExampleClient_StartMonitor() {
	ctx, c := dialed()
	defer c.Close()
	_, other := dialed()
	defer other.Close()
	if err := c.StartMonitor(ctx, 1); err != nil {
		log.Fatal(err)
	}
	must(other.Add(ctx, []byte("watched"), 1))
	list, dropped, err := c.TakeMonitored(ctx)
	for _, m := range list {
		fmt.Printf("%s %s\n", m.Method, m.Key)
	}
	fmt.Println(dropped, err)
	fmt.Println(c.StopMonitor(ctx))
	// Output:
	// add watched
	// 0 <nil>
	// true <nil>
}

func ExampleClient_Watch() {
	ctx, c := dialed()
	defer c.Close()
	begun := false
	for change, err := range c.Watch(ctx, client.WatchOptions{Prefix: []byte("seen/")}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %q\n", change.Kind, change.Key)
		if change.Kind == client.ChangeCommit { // whoever stores change.Address can go on from here
			if begun {
				break
			}
			begun = true
			must(c.MPut(ctx, []client.Pair{{Key: []byte("seen/a"), Value: []byte("1")}, {Key: []byte("seen/b"), Value: []byte("2")}}))
			must(c.Put(ctx, []byte("seen/a"), []byte("3"), client.Sync)) // the last state in a commit is what comes
			must(c.Put(ctx, []byte("other"), nil))
		}
	}
	// Unordered output:
	// commit ""
	// put "seen/a"
	// put "seen/b"
	// commit ""
}

// What could go wrong: a function is added, and nobody is shown how it is used.
func TestExamples_ShowEveryFunction(t *testing.T) {
	text, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	seen := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !f.Name.IsExported() || slices.Contains([]string{"Error", "Is", "Unwrap", "String", "Encode", "Decode", "Write"}, f.Name.Name) {
				continue // what interfaces ask for
			}
			seen++
			if !regexp.MustCompile(`\.` + f.Name.Name + `[(\[]`).Match(text) {
				t.Errorf("no example calls %s", f.Name.Name)
			}
		}
	}
	require.Greater(t, seen, 60)
}
