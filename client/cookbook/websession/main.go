// Command websession keeps the sessions of a web site's visitors: each is found by the token in a cookie,
// lives for a time after its last request, and is changed by requests that may come at the same time.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"

	"rskv/client"
)

// Session is what the site knows of a visitor.
type Session struct {
	User  string
	Cart  map[string]int
	Since time.Time
}

// Store keeps sessions.
type Store struct {
	c        *client.Client
	sessions *client.Typed[Session]
	idle     time.Duration // how long a session lives after its last request
}

func sessionKey(token string) []byte { return []byte("session:" + token) }

// Begin makes a session and returns its token.
func (s *Store) Begin(ctx context.Context, user string) (string, error) {
	token := rand.Text()
	_, err := s.sessions.Put(ctx, sessionKey(token), Session{user, map[string]int{}, time.Now()}, client.TTL(s.idle))
	return token, err
}

// Find returns a session, and lets it live on.
func (s *Store) Find(ctx context.Context, token string) (Session, error) {
	v, err := s.sessions.Get(ctx, sessionKey(token))
	if err == nil {
		_, err = s.c.Expire(ctx, sessionKey(token), s.idle)
	}
	return v, err
}

// errEnded says that a session has ended.
var errEnded = errors.New("the session has ended")

// Change changes a session, one request after the other, and lets it live on.
func (s *Store) Change(ctx context.Context, token string, change func(*Session)) (Session, error) {
	return s.sessions.Update(ctx, sessionKey(token), func(v Session, found bool) (Session, error) {
		if !found {
			return v, errEnded // an Update would make it anew
		}
		change(&v)
		return v, nil
	}, client.TTL(s.idle))
}

// End ends a session.
func (s *Store) End(ctx context.Context, token string) error {
	_, err := s.c.Delete(ctx, sessionKey(token))
	return err
}

// ServeHTTP puts what the path names into the visitor's cart.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	cookie, err := r.Cookie("session")
	if err != nil {
		http.Error(w, "log in", http.StatusUnauthorized)
		return
	}
	v, err := s.Change(r.Context(), cookie.Value, func(v *Session) { v.Cart[r.URL.Path[1:]]++ })
	switch {
	case errors.Is(err, errEnded):
		http.Error(w, "log in again", http.StatusUnauthorized)
	case err != nil:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		fmt.Fprint(w, v.User, " ", v.Cart)
	}
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.Dial(ctx, client.DefaultSocket())
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	s := &Store{c, client.NewTyped(c, client.MsgPack[Session]()), 30 * time.Minute}
	token, err := s.Begin(ctx, "ada")
	if err != nil {
		log.Fatal(err)
	}
	request := func(path string) string {
		r := httptest.NewRequestWithContext(ctx, "POST", path, nil)
		r.AddCookie(&http.Cookie{Name: "session", Value: token})
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return fmt.Sprint(w.Code, " ", w.Body.String())
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { request("/apple") })
	}
	all.Wait()
	fmt.Println(request("/pear"))
	v, err := s.Find(ctx, token)
	fmt.Println(v.User, v.Cart, err)
	if err := s.End(ctx, token); err != nil {
		log.Fatal(err)
	}
	fmt.Print(request("/apple"))
}
