package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// The escape sequences a full-screen view needs. Every terminal of the last
// decades has them.
const (
	screenOpen  = "\x1b[?1049h\x1b[?25l" // the other screen, no cursor
	screenClose = "\x1b[?25h\x1b[?1049l"
	screenHome  = "\x1b[H"
	lineRest    = "\x1b[K" // clears what is right of the cursor
	screenRest  = "\x1b[J" // and below it
	styleTitle  = "\x1b[7m"
	styleLabel  = "\x1b[1m"
	styleAlarm  = "\x1b[1;7m"
	styleNone   = "\x1b[0m"
)

// board is what top draws on.
type board struct {
	width, height int
	blocks        bool      // it can show block elements: its locale is UTF-8
	history       []float64 // requests a second, the last one now
}

// historyMax is how many seconds of history are kept: more than any screen is wide.
const historyMax = 500

func (s *board) note(rate float64) {
	s.history = append(s.history, rate)
	s.history = s.history[max(0, len(s.history)-historyMax):]
}

// speaksUTF8 reports whether the environment's locale is UTF-8.
func speaksUTF8(env func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} { // the first that is set counts
		if v := strings.ToUpper(env(name)); v != "" {
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return false
}

// curve draws the last values as one line of that many cells.
func (s *board) curve(cells int) string {
	if !s.blocks || cells <= 0 {
		return ""
	}
	last := s.history[max(0, len(s.history)-cells):]
	top := slices.Max(append([]float64{1}, last...))
	var line strings.Builder
	for _, v := range last {
		line.WriteRune([]rune(" ▁▂▃▄▅▆▇█")[int(math.Ceil(v/top*8))])
	}
	return line.String()
}

func (t *tool) topCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "top",
		Short: "show what the daemon does, full-screen, once a second; q ends it",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, _ := t.stdin.(*os.File)
			out, _ := t.stdout.(*os.File)
			if !isTerminal(in) || !isTerminal(out) {
				return errors.New("top needs a terminal (rskv --stat prints lines)")
			}
			return t.top(cmd, in, out)
		},
	}
}

func (t *tool) top(cmd *cobra.Command, in, out *os.File) error {
	before, err := t.sampleNow(cmd)
	if err != nil {
		return err
	}
	raw, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return fmt.Errorf("take over the terminal: %w", err)
	}
	defer func() {
		fmt.Fprint(out, screenClose)
		_ = term.Restore(int(in.Fd()), raw)
	}()
	fmt.Fprint(out, screenOpen)
	ctx, cancel := context.WithCancel(cmd.Context())
	cmd.SetContext(ctx)
	var keys sync.WaitGroup
	keys.Go(func() { quitOn(ctx, in, cancel) })
	defer keys.Wait() // before a shell reads on
	defer cancel()
	now := before
	s := board{blocks: speaksUTF8(os.Getenv)}
	for {
		if s.width, s.height, err = term.GetSize(int(out.Fd())); err != nil {
			s.width, s.height = 80, 24
		}
		if _, err := fmt.Fprint(out, frame(before, now, &s)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return errDone
		case <-time.After(liveEvery):
		}
		next, err := t.sampleNow(cmd)
		switch {
		case ctx.Err() != nil:
			return errDone
		case err != nil:
			return err
		}
		before, now = now, next
		s.note(now.perSecond(before, "daemon_requests"))
	}
}

// quitOn calls quit when a key is pressed that ends a full-screen view. It takes
// no key after ctx has ended.
func quitOn(ctx context.Context, in *os.File, quit func()) {
	var key [1]byte
	for ctx.Err() == nil {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(in.Fd()), Events: unix.POLLIN}}, int(keyEvery.Milliseconds()))
		if err == unix.EINTR || err == nil && ready == 0 {
			continue
		}
		n, err := in.Read(key[:])
		if err != nil || n == 1 && strings.IndexByte("qQ\x03\x04", key[0]) >= 0 {
			quit()
			return
		}
	}
}

// keyEvery is how long the end of a view may have to wait for who looks for keys.
const keyEvery = 50 * time.Millisecond

// frame is what top shows: lines that fit the screen.
func frame(before, now sample, s *board) string {
	lines := topLines(before, now)
	const requests = 3 // the line that has the curve
	if free := s.width - len([]rune(lines[requests])) - 4; free > 0 {
		lines[requests] += "    " + s.curve(free)
	}
	lines = lines[:min(len(lines), s.height)]
	var out strings.Builder
	out.WriteString(screenHome)
	for i, line := range lines {
		if i > 0 {
			out.WriteString("\r\n")
		}
		cells := []rune(line)
		cells = cells[:min(len(cells), s.width)]
		out.WriteString(styled(i, cells, s.width) + lineRest)
	}
	return out.String() + screenRest
}

// styled is line i of the screen with its title, its label or its alarm made to
// stand out.
func styled(i int, cells []rune, width int) string {
	text := string(cells)
	switch {
	case i == 0:
		return styleTitle + text + strings.Repeat(" ", width-len(cells)) + styleNone
	case i == 1 && text != "state      ok":
		return styleAlarm + text + styleNone
	case len(cells) < labelWidth || cells[0] == ' ':
		return text
	case cells[labelWidth-1] != ' ': // a heading
		return styleLabel + text + styleNone
	default:
		return styleLabel + string(cells[:labelWidth]) + styleNone + string(cells[labelWidth:])
	}
}

// labelWidth is how wide the first column of top is.
const labelWidth = 11

// topLines are the lines of top, the most important first.
func topLines(before, now sample) []string {
	rate := func(name string) string { return grouped(int64(now.perSecond(before, name))) }
	mb := func(name string) string { return fmt.Sprintf("%.1f MB/s", now.perSecond(before, name)/1e6) }
	mib := func(name string) string { return fmt.Sprintf("%.1f MiB", now.number(name)/(1<<20)) }
	uptime := (time.Duration(now.number("daemon_uptime_seconds")) * time.Second).String()
	lines := []string{
		fmt.Sprintf("rskvd %s   up %s   %s   %s   q quits", now.text("version"), uptime, now.text("io_backend"), now.at.Format(time.TimeOnly)),
		fmt.Sprintf("state      %s", now.text("engine_state")),
		"",
		fmt.Sprintf("requests   %12s /s   in %s   out %s", rate("daemon_requests"), mb("daemon_bytes_in"), mb("daemon_bytes_out")),
		fmt.Sprintf("reads      %12s /s   from disk %s /s   from the read cache %s /s", rate("engine_reads"), rate("engine_cold_reads"), rate("engine_cache_hits")),
		fmt.Sprintf("writes     %12s /s   in place %s /s   appended %s /s", rate("engine_writes"), rate("engine_writes_in_place"), rate("engine_writes_appended")),
		fmt.Sprintf("clients    %12s      sessions %s   queued answers %s", grouped(int64(now.number("daemon_connections"))), grouped(int64(now.number("engine_sessions"))), mib("daemon_queued_bytes")),
		fmt.Sprintf("keys       %12s", grouped(int64(now.number("engine_keys")))),
		fmt.Sprintf("log        %12s      not durable %.1f MiB   a restart replays %s", fmt.Sprintf("%.1f MiB", (now.number("engine_log_tail")-now.number("engine_log_begin"))/(1<<20)),
			(now.number("engine_log_tail")-now.number("engine_log_durable"))/(1<<20), mib("engine_replay_bytes")),
		fmt.Sprintf("memory     %12s      index %s   log %s   buffers %s   read cache %s", mib("engine_memory"), mib("engine_memory_index"), mib("engine_memory_log"), mib("engine_memory_buffers"), mib("engine_memory_cache")),
		fmt.Sprintf("disk       read %s   written %s   syncs %s /s   errors %s", mb("engine_device_read_bytes"), mb("engine_device_written_bytes"), rate("engine_device_syncs"), grouped(int64(now.number("engine_device_errors")))),
		fmt.Sprintf("commits    %12s /s   held writes for %s at most", rate("engine_commits"), short(now.number("engine_write_hold_max_ns"))),
		fmt.Sprintf("scrub      %s, %s damaged stretches   refused %s /s   slow %s", now.text("scrub_state"), grouped(int64(now.number("scrub_damages"))), rate("daemon_requests_refused"), grouped(int64(now.number("daemon_slow_requests")))),
		"",
		"since the start              p50       p99     p99.9",
	}
	for _, kind := range []struct{ label, name string }{
		{"reads in memory", "latency_read_none"}, {"reads from disk", "latency_read_disk"}, {"writes", "latency_write_none"},
		{"writes with sync", "latency_write_commit"}, {"syncs", "latency_sync_commit"},
	} {
		lines = append(lines, fmt.Sprintf("  %-20s %9s %9s %9s", kind.label, short(now.number(kind.name+"_p50_ns")), short(now.number(kind.name+"_p99_ns")), short(now.number(kind.name+"_p999_ns"))))
	}
	return append(append(lines, ""), topMethods(before, now)...)
}

// topMethods lists what is asked for most.
func topMethods(before, now sample) []string {
	const prefix = "daemon_requests_"
	type method struct {
		name string
		rate float64
	}
	var list []method
	for name := range now.stats {
		if short, ok := strings.CutPrefix(name, prefix); ok && name != "daemon_requests_refused" {
			if r := now.perSecond(before, name); r > 0 {
				list = append(list, method{short, r})
			}
		}
	}
	slices.SortFunc(list, func(a, b method) int {
		if a.rate != b.rate {
			return int(b.rate*1000) - int(a.rate*1000)
		}
		return strings.Compare(a.name, b.name)
	})
	var lines []string
	for _, m := range list {
		lines = append(lines, fmt.Sprintf("  %-20s %9s /s", m.name, grouped(int64(m.rate+0.5))))
	}
	return lines
}
