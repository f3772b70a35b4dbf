package daemon

import (
	"sync"
	"time"
)

// client is one user of this machine as far as its connections go: what
// max_connections_user and max_rate_user are counted in, over all sockets. It
// outlives the connections, so that nobody has more by connecting again.
type client struct {
	uid int // immutable

	// guarded by userTable.mu
	connections int

	mu     sync.Mutex
	tokens float64 // operations it may do now; below 0: it has done more; guarded by mu
	filled int64   // when tokens was right, by server.now; 0: never; guarded by mu
	denied quiet   // guarded by mu
}

// take reports whether the user may do n operations now, at rate a second in the
// long run and in bursts of a second's worth. Who may do any may do all of a
// request, and then waits until they are paid for.
func (u *client) take(n, rate int, now int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.filled == 0 {
		u.tokens = float64(rate)
	}
	passed := max(now-u.filled, 0) // connections look at the clock at different times
	u.tokens = min(u.tokens+float64(passed)/float64(time.Second)*float64(rate), float64(rate))
	u.filled = max(now, u.filled)
	if u.tokens < 1 {
		return false
	}
	u.tokens -= float64(n)
	return true
}

// forgettable reports whether a user who has no connection would be the same if
// it came back as a new one: it has nothing to pay for any more, and its burst is
// whole again whatever the rate.
func (u *client) forgettable(now int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.connections == 0 && u.tokens >= 0 && now-u.filled > int64(time.Second) && time.Since(u.denied.told) > deniedEvery
}

// usersKept is how many users are remembered before those that may be are
// forgotten. A user of this machine can come under many numbers, by namespaces.
const usersKept = 1024

// userTable is everybody who is, or was not long ago, connected.
type userTable struct {
	mu  sync.Mutex
	all map[int]*client // guarded by mu
}

// enter counts a connection of a user. false: there are most already; 0: no
// limit.
func (t *userTable) enter(uid, most int, now int64) (*client, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.all[uid]
	if u == nil {
		t.forgetLocked(now)
		u = &client{uid: uid}
		if t.all == nil {
			t.all = map[int]*client{}
		}
		t.all[uid] = u
	}
	if most > 0 && u.connections >= most {
		return u, false
	}
	u.connections++
	return u, true
}

// leave counts it no more.
func (t *userTable) leave(u *client) {
	t.mu.Lock()
	u.connections--
	t.mu.Unlock()
}

func (t *userTable) forgetLocked(now int64) {
	if len(t.all) < usersKept {
		return
	}
	for uid, u := range t.all {
		if u.forgettable(now) {
			delete(t.all, uid)
		}
	}
}
