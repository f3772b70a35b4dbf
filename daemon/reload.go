package daemon

import (
	"context"
	"maps"
)

// reloads loads the settings again each time one is asked for, until ctx ends.
func (s *server) reloads(ctx context.Context, n notifier, asked <-chan struct{}, load func() (Config, error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
		}
		n.reloading()
		s.reload(load)
		n.send("READY", "serving "+s.address)
	}
}

// reload puts in force what has changed in the sources of the settings. What
// cannot change while the daemon runs is named in the log and left; with any
// mistake in them all settings stay as they are.
func (s *server) reload(load func() (Config, error)) {
	asked, err := load()
	if err != nil {
		s.log.Error("settings were not reloaded, all stay as they are", "error", err)
		return
	}
	s.configure.Lock()
	defer s.configure.Unlock()
	cfg := *s.settings()
	if cfg.origin = maps.Clone(cfg.origin); cfg.origin == nil {
		cfg.origin = map[string]string{}
	}
	var changed [][2]string
	for _, row := range settings {
		now, wanted := row.bind(&cfg), row.bind(&asked).String()
		before := now.String()
		if before == wanted {
			continue
		}
		if !row.live {
			s.log.Warn("setting cannot change while the daemon runs; a restart puts it in force", "name", row.name, "value", before, "asked", wanted)
			continue
		}
		if err := now.Set(wanted); err != nil { // it was valid where it was loaded
			s.log.Error("setting was not changed", "name", row.name, "error", err)
			continue
		}
		cfg.origin[row.name] = asked.origin[row.name]
		changed = append(changed, [2]string{row.name, wanted})
	}
	if err := s.adjust(&cfg); err != nil {
		s.log.Error("settings were not reloaded, all stay as they are", "error", err)
		return
	}
	s.enforce(&cfg)
	for _, c := range changed {
		s.log.Info("setting changed", "name", c[0], "value", c[1])
	}
	s.log.Info("settings reloaded", "changed", len(changed))
}
