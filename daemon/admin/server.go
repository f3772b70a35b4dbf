package admin

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"
)

// Source is what there is to show. Its functions are called from several
// goroutines at once, from before the store is open until after it is closed.
type Source struct {
	// Metrics gathers every family there is.
	Metrics func() []Family
	// Status is encoded as JSON for /status and the page.
	Status func() any
	// Live returns nil if the daemon answers a request of its own.
	Live func(context.Context) error
	// Ready returns nil if clients are served in full, otherwise why not.
	Ready func() error
}

// Limits of the server. What it answers with is small and local; who needs
// longer than this has gone.
const (
	readTimeout  = 5 * time.Second
	idleTimeout  = 2 * time.Minute
	writeTimeout = 2 * time.Minute // a CPU profile takes 30 s by default
	headerMax    = 16 << 10
	// connectionsMax is far more than operators and scrapers have open.
	connectionsMax = 64
)

// Handler answers every path. profiles: also /debug/pprof/, which shows what is
// in memory and can slow the daemon down. local: only requests whose host is a
// loopback address, for a listener that browsers can reach.
func Handler(s Source, profiles, local bool) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", s.metrics)
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, r *http.Request) { health(w, s.Live(r.Context())) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { health(w, s.Ready()) })
	mux.HandleFunc("GET /{$}", showPage)
	if profiles {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	if !local {
		return mux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopbackHost(r.Host) {
			http.Error(w, "this address answers to loopback hosts only", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// loopbackHost reports whether a Host header names this machine by a loopback
// address or as localhost.
func loopbackHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

func (s Source) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(AppendText(nil, s.Metrics()))
}

func (s Source) status(w http.ResponseWriter, _ *http.Request) {
	text, err := json.Marshal(s.Status())
	if err != nil {
		http.Error(w, "encode status: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(text, '\n'))
}

// health answers 200 or 503, with a sentence.
func health(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = fmt.Fprintln(w, err)
		return
	}
	_, _ = fmt.Fprintln(w, "ok")
}

//go:embed page.html
var page []byte

func showPage(w http.ResponseWriter, _ *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	// The page holds everything it needs: nothing else may be loaded.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:")
	_, _ = w.Write(page)
}

// Server serves one handler on one listener.
type Server struct {
	http http.Server
	done chan struct{} // closed when nothing is accepted any more
}

// Serve begins to serve on listener, which it takes over, and returns at once.
func Serve(listener net.Listener, handler http.Handler, log *slog.Logger) *Server {
	s := &Server{done: make(chan struct{})}
	s.http = http.Server{
		Handler: handler, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: headerMax, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(&bounded{listener, make(chan struct{}, connectionsMax)}); !errors.Is(err, http.ErrServerClosed) {
			log.Warn("the admin server has stopped", "address", listener.Addr().String(), "error", err)
		}
	}()
	return s
}

// Close ends the server: requests in flight get grace to finish.
func (s *Server) Close(grace time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
	<-s.done
}
