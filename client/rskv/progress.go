package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// The progress line: redrawn a few times a second, barWidth cells wide.
const (
	progressEvery = 200 * time.Millisecond
	barWidth      = 24
)

// progress draws one line on a terminal while a transfer runs. A nil *progress
// draws nothing.
type progress struct {
	out   io.Writer
	t     *transfer
	in    *input // total and done may be nil
	begin time.Time
	width int // of the line on the terminal now
	mu    sync.Mutex
	stop  chan struct{}
	ended chan struct{}
}

// startProgress begins drawing; the caller calls end.
func startProgress(out io.Writer, t *transfer, in *input) *progress {
	p := &progress{out: out, t: t, in: in, begin: time.Now(), stop: make(chan struct{}), ended: make(chan struct{})}
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

func (p *progress) line(took time.Duration) string {
	keys, bytes := p.t.keys.Load(), p.t.bytes.Load()
	text := fmt.Sprintf("%s keys  %s MB  %.1f MB/s", grouped(keys), grouped(bytes/1e6), float64(bytes)/1e6/max(took.Seconds(), 1e-9))
	if p.in == nil || p.in.total == nil {
		return text
	}
	total := p.in.total()
	if total <= 0 {
		return text
	}
	share := min(1, float64(p.in.done())/float64(total))
	full := int(share * barWidth)
	return fmt.Sprintf("[%s%s] %3.0f%%  %s", strings.Repeat("#", full), strings.Repeat("-", barWidth-full), share*100, text)
}
