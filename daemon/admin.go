package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"rskv/daemon/admin"
	"rskv/ipc"
)

const (
	// adminAuto and adminOff are what admin_socket says besides a path.
	adminAuto = "auto"
	adminOff  = "off"
	// adminSuffix makes the data socket's path the admin socket's.
	adminSuffix = ".admin"
	// adminMode lets the daemon's own user and root in, nobody else.
	adminMode = 0o600
	// adminGrace is how long an operator's request in flight may take at the end.
	adminGrace = 500 * time.Millisecond
)

// adminPath is where the admin socket is to be; "": nowhere.
func (c *Config) adminPath() string {
	switch c.AdminSocket {
	case adminOff:
		return ""
	case adminAuto:
		if path := c.Socket + adminSuffix; len(path) <= ipc.MaxSocketPath {
			return path
		}
		return ""
	}
	return c.AdminSocket
}

// operators is the daemon's door for its operators.
type operators struct {
	entry   *entry // nil: none
	servers []*admin.Server
	where   []string // for the log
}

// openAdmin serves operators from here on, before the store is opened. given is
// a listener of the service manager; nil: none.
func (s *server) openAdmin(ctx context.Context, cfg *Config, given *net.UnixListener) (*operators, error) {
	o := &operators{}
	source := admin.Source{Metrics: s.families, Status: s.status, Live: s.probe, Ready: s.health.ready}
	if path := cfg.adminPath(); path != "" || given != nil {
		var err error
		if o.entry, err = claim(path, given); err != nil {
			return nil, fmt.Errorf("admin socket: %w", err)
		}
		listener, err := o.entry.listen(ctx, adminMode, groupName{})
		if err != nil {
			o.close()
			return nil, fmt.Errorf("admin socket: %w", err)
		}
		o.servers = append(o.servers, admin.Serve(listener, admin.Handler(source, true, false), s.log))
		o.where = append(o.where, o.entry.path)
	} else if cfg.AdminSocket == adminAuto {
		s.log.Warn("no admin socket: the path would be too long; set admin_socket", "socket", cfg.Socket+adminSuffix)
	}
	if cfg.AdminListen == "" {
		return o, nil
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", cfg.AdminListen)
	if err != nil {
		o.close()
		return nil, fmt.Errorf("admin_listen: %w", err)
	}
	o.servers = append(o.servers, admin.Serve(listener, admin.Handler(source, false, true), s.log))
	o.where = append(o.where, "http://"+listener.Addr().String())
	return o, nil
}

func (o *operators) close() {
	for _, server := range o.servers {
		server.Close(adminGrace)
	}
	if o.entry != nil {
		o.entry.release()
	}
}

// status is what /status answers: the moment, for people and for the page.
type status struct {
	Version  string         `json:"version"`
	Phase    string         `json:"phase"`
	Ready    bool           `json:"ready"`
	Why      string         `json:"why,omitempty"` // not ready
	Done     int64          `json:"done,omitempty"`
	Total    int64          `json:"total,omitempty"` // bytes of the step of opening
	Uptime   float64        `json:"uptime_seconds"`
	Socket   string         `json:"socket"`
	Dir      string         `json:"dir"`
	Stats    map[string]any `json:"stats,omitempty"`
	Settings []Setting      `json:"settings"`
	// Latency is the histograms since the start, by kind and what was waited
	// for: pairs of a bucket's end in nanoseconds and its count, empty ones
	// left out.
	Latency map[string][][2]int64 `json:"latency"`
}

func (s *server) status() any {
	cfg := s.settings()
	st := status{
		Version: Version(), Phase: s.health.is().String(), Uptime: time.Since(s.started).Seconds(),
		Socket: cfg.Socket, Dir: cfg.Dir, Settings: cfg.All(), Latency: map[string][][2]int64{},
	}
	if p := s.health.progress.Load(); p != nil && s.health.is() == opening {
		st.Done, st.Total = p.Done, p.Total
	}
	if err := s.health.ready(); err != nil {
		st.Why = err.Error()
	} else {
		st.Ready = true
	}
	s.health.look(func() { st.Stats = s.stats() })
	for kind := range timedKinds {
		pairs := [][2]int64{}
		counts, _ := s.traffic.times(kind)
		for i, n := range counts {
			if n > 0 {
				pairs = append(pairs, [2]int64{stepEnd(min(i, latencySteps-2)), int64(n)})
			}
		}
		st.Latency[timedLabels[kind][0]+"_"+timedLabels[kind][1]] = pairs
	}
	return st
}

// loopbackValue is an address and port of this machine that no other can reach,
// or nothing.
type loopbackValue struct{ p *string }

var errLoopback = errors.New("not a loopback address with a port, such as 127.0.0.1:9510")

func (v loopbackValue) Set(s string) error {
	if s != "" {
		addr, err := netip.ParseAddrPort(s)
		if err != nil || !addr.Addr().IsLoopback() {
			return errLoopback
		}
	}
	*v.p = s
	return nil
}
func (v loopbackValue) String() string { return *v.p }
func (v loopbackValue) Type() string   { return "address" }
