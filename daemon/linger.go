package daemon

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A client that waits for each of its synced writes sends the next one some
// microseconds after it has the answer: sooner than a thread that has gone to sleep
// is woken again. So a reader that has made such a client's commit itself looks for
// the next request for a moment before it sleeps, and lets others run meanwhile.
//
//	lead --answer--> linger: read, yield, read, ... --> a request, or in vain: sleep
//
// Where that is in vain a few times in a row, it is left alone for a while.
const (
	// lingerFor is about what it takes to wake a thread, and the client to answer.
	lingerFor = 40 * time.Microsecond
	// lingerInVain is how often in a row it may be in vain.
	lingerInVain = 3
	// lingerAgain is after how many commits it is tried again then.
	lingerAgain = 256
)

// linger is owned by the reader.
type linger struct {
	due    bool // the client has just been answered
	inVain int  // how often in a row
	skip   int  // commits until it is tried again
	asked  uint64
}

func (l *linger) init() {
	if runtime.GOMAXPROCS(0) == 1 {
		l.skip = -1 // for ever: the client may need the only processor
	}
}

// answered says that a client has been answered that may be back at once; asked is how
// often all clients have asked for commits. It is of no use where others do too: they
// have need of the processor.
func (l *linger) answered(asked uint64) {
	alone := asked == l.asked+1
	l.asked = asked
	if l.skip > 0 {
		l.skip--
	}
	l.due = alone && l.skip == 0
}

// done notes whether it was of use.
func (l *linger) done(found bool) {
	if found {
		l.inVain = 0
		return
	}
	if l.inVain++; l.inVain == lingerInVain {
		l.inVain, l.skip = 0, lingerAgain
	}
}

// lingering reads what comes within a moment of an answer, and returns how many bytes.
// What is wrong with the connection the next ordinary read tells.
func (c *conn) lingering(fd uintptr) (n int) {
	l := &c.linger
	if !l.due {
		return 0
	}
	l.due = false
	for begin := time.Now(); ; runtime.Gosched() {
		n, _ = unix.Read(int(fd), c.in.buf[c.in.end:])
		if n > 0 || time.Since(begin) > lingerFor {
			break
		}
	}
	n = max(n, 0)
	l.done(n > 0)
	return n
}
