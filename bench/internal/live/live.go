// Package live tells whoever waits what a measurement is doing.
//
//	on a terminal    one line that is written over four times a second:
//	                   randread  1.2 s of 5 s  83.1 k/s  47.9 us  3.8 s left
//	anywhere else    whole lines, and only what Say says
//
// Rates and latencies are differences of counters between two looks at them:
// what was done since the last one, not what was asked for.
package live

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

// every is how often the line is written anew: often enough to follow, too
// seldom to cost anything.
const every = 250 * time.Millisecond

// widthDefault is the width of a terminal that does not tell it.
const widthDefault = 80

// Line is where progress goes. Its methods may be called from any goroutine.
type Line struct {
	w        io.Writer
	terminal bool
	width    func() int
	begin    time.Time

	mu struct {
		sync.Mutex
		shown int // characters of the line that stand there now
		total int // steps of the whole run; 0: not known
		done  int
	}
}

// New returns a Line that writes to w, and writes over itself if w is a terminal.
func New(w io.Writer) *Line {
	l := &Line{w: w, begin: time.Now(), width: func() int { return widthDefault }}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb" {
		l.terminal = true
		l.width = func() int {
			if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
				return n
			}
			return widthDefault
		}
	}
	return l
}

// Say writes a line that stays.
func (l *Line) Say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wipeLocked()
	fmt.Fprintf(l.w, format+"\n", args...)
}

// Steps says how many steps there will be, so that the time left can be told.
func (l *Line) Steps(total int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.total, l.mu.done, l.begin = total, 0, time.Now()
}

// Step counts one step as begun and says which: on a terminal in passing,
// elsewhere as a line.
func (l *Line) Step(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	if left := l.leftLocked(); left > 0 {
		text += fmt.Sprintf("  (%s left)", left.Round(time.Second))
	}
	l.mu.done++
	if l.terminal {
		l.showLocked(text)
		return
	}
	fmt.Fprintln(l.w, text)
}

// leftLocked is how long the steps that are left will take if they take as long
// as those before.
func (l *Line) leftLocked() time.Duration {
	if l.mu.done == 0 || l.mu.total <= l.mu.done {
		return 0
	}
	return time.Since(l.begin) / time.Duration(l.mu.done) * time.Duration(l.mu.total-l.mu.done)
}

// Done takes the passing line away.
func (l *Line) Done() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wipeLocked()
}

// Count is what Watch looks at: operations so far, and the sum of their times.
type Count func() (ops uint64, nanos uint64)

// Watch shows rate and mean latency of what is counted, until stop is called.
// length is how long it will take, 0 if nobody knows. Off a terminal it does
// nothing.
func (l *Line) Watch(name string, length time.Duration, count Count) (stop func()) {
	if !l.terminal {
		return func() {}
	}
	end, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		l.watch(name, length, count, end)
	}()
	return sync.OnceFunc(func() {
		close(end)
		<-gone
		l.Done()
	})
}

func (l *Line) watch(name string, length time.Duration, count Count, end <-chan struct{}) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	begin := time.Now()
	last, ops, nanos := begin, uint64(0), uint64(0)
	ops, nanos = count()
	for {
		select {
		case <-end:
			return
		case now := <-ticker.C:
			o, n := count()
			text := progress(name, now.Sub(begin), length, o-ops, n-nanos, now.Sub(last))
			last, ops, nanos = now, o, n
			l.mu.Lock()
			l.showLocked(text)
			l.mu.Unlock()
		}
	}
}

// progress is the line: what was done in since, and how long there is to go.
func progress(name string, passed, length time.Duration, ops, nanos uint64, since time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %.1f s", name, passed.Seconds())
	if length > 0 {
		fmt.Fprintf(&b, " of %g s", length.Seconds())
	}
	fmt.Fprintf(&b, "  %s/s", Short(float64(ops)/since.Seconds()))
	if ops > 0 && nanos > 0 {
		fmt.Fprintf(&b, "  %s us", Short(float64(nanos)/float64(ops)/1000))
	}
	if left := length - passed; left > 0 {
		fmt.Fprintf(&b, "  %.1f s left", left.Seconds())
	}
	return b.String()
}

// Short prints a number in few characters.
func Short(x float64) string {
	switch {
	case x >= 1e6:
		return fmt.Sprintf("%.2f M", x/1e6)
	case x >= 1e4:
		return fmt.Sprintf("%.1f k", x/1e3)
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.2f", x)
}

// showLocked writes text over what stands in the line.
func (l *Line) showLocked(text string) {
	if room := l.width() - 1; len(text) > room {
		text = text[:max(room, 0)]
	}
	fmt.Fprintf(l.w, "\r%-*s", l.mu.shown, text)
	l.mu.shown = len(text)
}

func (l *Line) wipeLocked() {
	if l.mu.shown > 0 {
		fmt.Fprintf(l.w, "\r%*s\r", l.mu.shown, "")
		l.mu.shown = 0
	}
}
