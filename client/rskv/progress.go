package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The progress line: redrawn a few times a second, barWidth cells wide.
const (
	progressEvery = 200 * time.Millisecond
	barWidth      = 24
)

// progress draws one line on a terminal while something runs. A nil *progress
// draws nothing.
type progress struct {
	out   io.Writer
	line  func(took time.Duration) string // immutable
	begin time.Time
	width int // of the line on the terminal now
	mu    sync.Mutex
	stop  chan struct{}
	ended chan struct{}
}

// startProgress begins drawing; the caller calls end.
func startProgress(out io.Writer, line func(took time.Duration) string) *progress {
	p := &progress{out: out, line: line, begin: time.Now(), stop: make(chan struct{}), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.mu.Lock()
				p.draw(p.line(time.Since(p.begin)))
				p.mu.Unlock()
			case <-p.stop:
				return
			}
		}
	}()
	return p
}

// end removes the line.
func (p *progress) end() {
	if p == nil {
		return
	}
	close(p.stop)
	<-p.ended
	p.draw("")
}

// around runs print with the line out of the way.
func (p *progress) around(print func()) {
	if p == nil {
		print()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draw("")
	print()
}

// draw replaces the line by text.
func (p *progress) draw(text string) {
	pad := strings.Repeat(" ", max(0, p.width-len(text)))
	if text == "" {
		pad += "\r"
	}
	fmt.Fprint(p.out, "\r"+text+pad)
	p.width = len(text)
}

// progressOf is the line of a transfer; total and done of its input may be nil.
func progressOf(t *transfer, in *input) func(took time.Duration) string {
	return func(took time.Duration) string {
		keys, bytes := t.keys.Load(), t.bytes.Load()
		text := fmt.Sprintf("%s keys  %s", grouped(keys), rate(bytes, took))
		if in == nil || in.total == nil {
			return text
		}
		return share(in.done(), in.total()) + text
	}
}

// steps is how far something has come whose length is known. Written by who
// does it, read by the progress line.
type steps struct{ done, total atomic.Int64 }

// set takes the bytes done, of how many.
func (s *steps) set(done, total int64) {
	s.done.Store(done)
	s.total.Store(total)
}

func (s *steps) line(took time.Duration) string {
	done := s.done.Load()
	return share(done, s.total.Load()) + rate(done, took)
}

// rate is bytes and how many a second.
func rate(bytes int64, took time.Duration) string {
	return fmt.Sprintf("%s MB  %.1f MB/s", grouped(bytes/1e6), float64(bytes)/1e6/max(took.Seconds(), 1e-9))
}

// share is a bar and a percentage, or nothing if the total is not known.
func share(done, total int64) string {
	if total <= 0 {
		return ""
	}
	part := min(1, float64(done)/float64(total))
	full := int(part * barWidth)
	return fmt.Sprintf("[%s%s] %3.0f%%  ", strings.Repeat("#", full), strings.Repeat("-", barWidth-full), part*100)
}
