package daemon

import (
	"errors"
	"fmt"

	"rskv/engine"
)

// storeSetting is a setting that the store can change while it runs, too.
type storeSetting struct {
	name string
	of   func(c *Config) float64
	set  func(s *engine.Store, c *Config) error
}

// storeSettings are all of them.
var storeSettings = []storeSetting{
	{"memory", func(c *Config) float64 { return float64(c.Memory) },
		func(s *engine.Store, c *Config) error { return s.SetMemory(c.Memory) }},
	{"disk", func(c *Config) float64 { return float64(c.Disk) },
		func(s *engine.Store, c *Config) error { return s.SetDisk(c.Disk) }},
	{"live_ratio", func(c *Config) float64 { return c.LiveRatio },
		func(s *engine.Store, c *Config) error { return s.SetLiveRatio(c.liveRatio()) }},
}

// liveRatio is the setting as the engine has it: to that 0 is its default.
func (c *Config) liveRatio() float64 {
	if c.LiveRatio == 0 {
		return -1 // only for the disk budget, or when asked
	}
	return c.LiveRatio
}

// adjust brings the store from what holds now to the settings wanted: to all of
// them, or it stays as it was. Called with configure held.
func (s *server) adjust(wanted *Config) error {
	now := s.settings()
	for i, setting := range storeSettings {
		if setting.of(now) == setting.of(wanted) {
			continue
		}
		err := setting.set(s.store, wanted)
		if err == nil {
			continue
		}
		err = fmt.Errorf("%s: %w", setting.name, err)
		for _, done := range storeSettings[:i] {
			if done.of(now) != done.of(wanted) {
				err = errors.Join(err, done.set(s.store, now))
			}
		}
		return err
	}
	return nil
}
