package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rskv/client/rskvtest"
)

// terminalWait bounds waits for what comes in milliseconds on a free machine.
const terminalWait = 2 * time.Minute

// console is a terminal of the kernel's, with a user at its other end.
type console struct {
	user, program *os.File
	seen          *screen
}

func newConsole(t *testing.T) *console {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	require.NoError(t, unix.IoctlSetPointerInt(int(user.Fd()), unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(int(user.Fd()), unix.TIOCGPTN)
	require.NoError(t, err)
	program, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	c := &console{user, program, &screen{}}
	c.size(t, 100, 40)
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := user.Read(buf)
			_, _ = c.seen.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		program.Close()
		select {
		case <-read: // it ends with the last who has the terminal open
			user.Close()
		case <-time.After(terminalWait):
			t.Error("somebody still reads from the terminal")
		}
	})
	return c
}

func (c *console) size(t *testing.T, width, height uint16) {
	t.Helper()
	require.NoError(t, unix.IoctlSetWinsize(int(c.user.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}))
}

// mode is how the terminal treats what is typed.
func (c *console) mode(t *testing.T) unix.Termios {
	t.Helper()
	mode, err := unix.IoctlGetTermios(int(c.program.Fd()), unix.TCGETS)
	require.NoError(t, err)
	return *mode
}

// run starts the tool on the terminal; its exit code comes when it has ended.
func (c *console) run(ctx context.Context, socket string, args ...string) <-chan int {
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, append([]string{"--socket", socket}, args...), c.program, c.program, c.program)
	}()
	return code
}

// types waits until the terminal has shown what is expected, and then types.
func (c *console) types(t *testing.T, expected, text string) {
	t.Helper()
	c.typesWhen(t, func() bool { return strings.Contains(c.seen.String(), expected) }, text, "%q is not on the terminal", expected)
}

// answers waits until what is expected has been there so many times and the shell has
// its prompt at the end, and then types. While a command runs the terminal is as it was
// before the shell: it would take Ctrl-D and Ctrl-C for itself, and an end of line for another.
func (c *console) answers(t *testing.T, times int, expected, text string) {
	t.Helper()
	c.typesWhen(t, func() bool {
		seen := c.seen.String()
		return strings.Count(seen, expected) >= times && strings.HasSuffix(seen, prompt)
	}, text, "%q and a prompt are not on the terminal %d times", expected, times)
}

func (c *console) typesWhen(t *testing.T, when func() bool, text, otherwise string, args ...any) {
	t.Helper()
	for end := time.Now().Add(terminalWait); !when(); time.Sleep(5 * time.Millisecond) {
		require.True(t, time.Now().Before(end), "%s: %q", fmt.Sprintf(otherwise, args...), c.seen.String())
	}
	_, err := c.user.WriteString(text)
	require.NoError(t, err)
}

// ends waits for the tool's exit code.
func (c *console) ends(t *testing.T, code <-chan int) int {
	t.Helper()
	select {
	case n := <-code:
		return n
	case <-time.After(terminalWait):
		t.Fatalf("the tool does not end: %q", c.seen.String())
		return 0
	}
}

// A shell that leaves the terminal raw, or loses lines, is the end of a session
// at three in the morning.
func TestTerminal_Shell(t *testing.T) {
	s, c := rskvtest.NewServer(t), newConsole(t)
	before := c.mode(t)
	code := c.run(t.Context(), s.Socket())
	c.types(t, prompt, "pu\tgreeting 'hello, world'\r")
	c.answers(t, 2, prompt, "get greeting\r")
	c.answers(t, 1, "\nhello, world\r\n", "\x03") // Ctrl-C does not leave
	c.types(t, "Ctrl-D or exit leaves", "get not this\x03get gree\x12\r")
	c.size(t, 30, 10)
	c.answers(t, 2, "\nhello, world\r\n", "ping\r")
	c.answers(t, 1, "pong", "\x04")
	require.Zero(t, c.ends(t, code))
	require.Equal(t, before, c.mode(t))
}

// top must give the terminal back as it was, however it ends.
func TestTerminal_Top(t *testing.T) {
	s, c := rskvtest.NewServer(t), newConsole(t)
	before := c.mode(t)
	code := c.run(t.Context(), s.Socket(), "top")
	c.types(t, "q quits", "x") // no key that ends it
	c.types(t, "writes with sync", "q")
	require.Zero(t, c.ends(t, code))
	require.Equal(t, before, c.mode(t))
	c.types(t, screenClose, "")
	require.True(t, strings.HasPrefix(c.seen.String(), screenOpen))

	// In a shell, what is typed after it is the shell's.
	c = newConsole(t)
	code = c.run(t.Context(), s.Socket())
	c.types(t, prompt, "top\r")
	c.types(t, "writes with sync", "qping\r")
	c.answers(t, 1, "pong", "\x04")
	require.Zero(t, c.ends(t, code))

	require.NoError(t, s.Close())
	c = newConsole(t)
	require.Equal(t, exitError, c.ends(t, c.run(t.Context(), s.Socket(), "top")))
	require.NotContains(t, c.seen.String(), screenOpen, "without a daemon it does not begin")
}

// What is redrawn must be one line, and end with one.
func TestTerminal_Latency(t *testing.T) {
	s, c := rskvtest.NewServer(t), newConsole(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	code := c.run(ctx, s.Socket(), "--latency")
	c.types(t, " pings  min ", "")
	cancel()
	require.Zero(t, c.ends(t, code))
	c.types(t, "\r\n", "")
	require.Equal(t, 1, strings.Count(c.seen.String(), "\n"))

	// A value has an end of line on a terminal only.
	c = newConsole(t)
	require.Zero(t, c.ends(t, c.run(t.Context(), s.Socket(), "put", "k", "v")))
	require.Zero(t, c.ends(t, c.run(t.Context(), s.Socket(), "get", "k")))
	c.types(t, "v\r\n", "")
}

// A bar that stays on the line is read for output.
func TestTerminal_Progress(t *testing.T) {
	c := newConsole(t)
	var at steps
	bar := startProgress(c.program, at.line)
	at.set(50, 100)
	c.types(t, "[############------------]  50%", "")
	bar.around(func() { fmt.Fprintln(c.program, "meanwhile") })
	bar.end()
	c.types(t, "meanwhile\r\n", "")
	_, err := c.program.WriteString("end")
	require.NoError(t, err)
	c.types(t, "\rend", "")
}
