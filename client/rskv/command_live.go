package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"rskv/client"
)

// Views that go on until they are interrupted: `rskv --latency` and
// `rskv --stat`. On a terminal the first redraws its line; elsewhere, and with
// --json, both print one a second.

const (
	// pingPause is between two pings: enough to see what a daemon at work does
	// to others, little enough not to be that work.
	pingPause = 10 * time.Millisecond
	liveEvery = time.Second
	// headEvery is after how many lines the heads of columns come again.
	headEvery = 20
)

// latency pings until ctx ends and shows how long the answers took.
func (t *tool) latency(cmd *cobra.Command) error {
	times := hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3)
	redraw := isTerminal(t.stdout) && !t.json
	shown := time.Now()
	for {
		var took time.Duration
		err := t.call(cmd, func(ctx context.Context, c *client.Client) error {
			begin := time.Now()
			err := c.Ping(ctx)
			took = time.Since(begin)
			return err
		})
		if cmd.Context().Err() == nil && err != nil {
			return err
		}
		if err == nil {
			// Beyond a minute --timeout has struck: it is in range.
			_ = times.RecordValue(min(max(took.Microseconds(), 1), times.HighestTrackableValue()))
		}
		every := liveEvery
		if redraw {
			every = progressEvery
		}
		ended := cmd.Context().Err() != nil
		if ended || time.Since(shown) >= every {
			shown = time.Now()
			if err := t.printLatency(times, redraw, ended); err != nil {
				return err
			}
		}
		if ended {
			return errDone
		}
		select {
		case <-cmd.Context().Done():
		case <-time.After(pingPause):
		}
	}
}

func (t *tool) printLatency(h *hdrhistogram.Histogram, redraw, last bool) error {
	p50, p99 := h.ValueAtQuantile(50), h.ValueAtQuantile(99)
	text := fmt.Sprintf("%s pings  min %s  p50 %s  p99 %s  max %s", grouped(h.TotalCount()), micros(h.Min()), micros(p50), micros(p99), micros(h.Max()))
	if redraw {
		end := ""
		if last {
			end = "\n"
		}
		_, err := fmt.Fprintf(t.stdout, "\r%s\x1b[K%s", text, end)
		return err
	}
	return t.answer(text, field{"pings", h.TotalCount()}, field{"min_us", h.Min()}, field{"p50_us", p50}, field{"p99_us", p99}, field{"max_us", h.Max()})
}

// micros writes microseconds for people.
func micros(us int64) string { return (time.Duration(us) * time.Microsecond).String() }

// sample is what stats said at one moment.
type sample struct {
	at    time.Time
	stats map[string]any
}

// sampleNow asks for the stats.
func (t *tool) sampleNow(cmd *cobra.Command) (s sample, err error) {
	err = t.call(cmd, func(ctx context.Context, c *client.Client) (err error) {
		s.stats, err = c.Stats(ctx)
		s.at = time.Now()
		return err
	})
	return s, err
}

// number is a number in stats as a float; 0 if there is none of that name.
func (s sample) number(name string) float64 {
	switch v := s.stats[name].(type) {
	case int64:
		return float64(v)
	case uint64:
		return float64(v)
	case float64:
		return v
	}
	return 0
}

// text is a string in stats, "" if there is none of that name.
func (s sample) text(name string) string {
	v, _ := s.stats[name].(string)
	return v
}

// perSecond is how much a counter has grown a second since an earlier sample.
func (s sample) perSecond(before sample, name string) float64 {
	seconds := s.at.Sub(before.at).Seconds()
	if seconds <= 0 {
		return 0
	}
	return max(0, s.number(name)-before.number(name)) / seconds
}

// stat prints a line of what the daemon does each second until it is interrupted.
func (t *tool) stat(cmd *cobra.Command) error {
	before, err := t.sampleNow(cmd)
	for line := 0; err == nil; line++ {
		select {
		case <-cmd.Context().Done():
			return errDone
		case <-time.After(liveEvery):
		}
		var now sample
		if now, err = t.sampleNow(cmd); err != nil {
			break
		}
		if line%headEvery == 0 && !t.json {
			if _, err := fmt.Fprintln(t.stdout, statHead); err != nil {
				return err
			}
		}
		if err := t.answer(statLine(before, now), statFields(before, now)...); err != nil {
			return err
		}
		before = now
	}
	if cmd.Context().Err() != nil {
		return errDone
	}
	return err
}

// statHead stands above the columns of statLine.
const statHead = "      keys   requests/s  reads/s  writes/s  cold/s   in MB/s  out MB/s  disk MB/s  p99 read  clients  state"

func statLine(before, now sample) string {
	disk := now.perSecond(before, "engine_device_read_bytes") + now.perSecond(before, "engine_device_written_bytes")
	return fmt.Sprintf("%10s %12s %8s %9s %7s %9.1f %9.1f %10.1f %9s %8.0f  %s", grouped(int64(now.number("engine_keys"))),
		grouped(int64(now.perSecond(before, "daemon_requests"))), grouped(int64(now.perSecond(before, "engine_reads"))),
		grouped(int64(now.perSecond(before, "engine_writes"))), grouped(int64(now.perSecond(before, "engine_cold_reads"))),
		now.perSecond(before, "daemon_bytes_in")/1e6, now.perSecond(before, "daemon_bytes_out")/1e6, disk/1e6,
		short(now.number("latency_read_none_p99_ns")), now.number("daemon_connections"), now.text("health"))
}

// short writes nanoseconds in three digits or so.
func short(ns float64) string {
	switch {
	case ns <= 0:
		return "-"
	case ns < 1e6:
		return fmt.Sprintf("%.0fus", ns/1e3)
	case ns < 1e9:
		return fmt.Sprintf("%.1fms", ns/1e6)
	}
	return fmt.Sprintf("%.1fs", ns/1e9)
}

// statFields is the same for programs: what stats says now, and the growth of
// its counters.
func statFields(before, now sample) []field {
	rates := map[string]float64{}
	for _, name := range []string{"daemon_requests", "engine_reads", "engine_writes", "engine_cold_reads", "daemon_bytes_in",
		"daemon_bytes_out", "engine_device_read_bytes", "engine_device_written_bytes"} {
		rates[name] = now.perSecond(before, name)
	}
	stats, _ := jsonValue(maps.Clone(now.stats)).(map[string]any)
	return []field{{"time", now.at.UTC().Format(time.RFC3339Nano)}, {"per_second", rates}, {"stats", stats}}
}

// views are what the flags of rskv itself ask for.
type views struct{ latency, stat, bigkeys, pipe bool }

func (v *views) add(flags *pflag.FlagSet) {
	flags.BoolVar(&v.latency, "latency", false, "ping until interrupted, and show how long the answers take")
	flags.BoolVar(&v.stat, "stat", false, "print a line of what the daemon does each second until interrupted")
	flags.BoolVar(&v.bigkeys, "bigkeys", false, "read the whole store and print what is large in it")
	flags.BoolVar(&v.pipe, "pipe", false, "carry out the writes on stdin, a line each as in the shell, without waiting for each")
}

// asked is how many there are.
func (v *views) asked() (n int) {
	for _, b := range []bool{v.latency, v.stat, v.bigkeys, v.pipe} {
		if b {
			n++
		}
	}
	return n
}

// view runs the one that is asked for.
func (t *tool) view(cmd *cobra.Command, v *views) error {
	switch {
	case v.asked() > 1:
		return errors.New("one of --latency, --stat, --bigkeys and --pipe at a time")
	case v.latency:
		return t.latency(cmd)
	case v.stat:
		return t.stat(cmd)
	case v.bigkeys:
		return t.bigkeys(cmd)
	}
	return t.pipe(cmd)
}
