package daemon

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAdmin_Page: a page that is blank, throws an error, or does not follow the
// daemon. It is loaded by a browser, and what that has made of it is looked at.
func TestAdmin_Page(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil || testing.Short() {
		t.Skip("needs Chromium, and more time than a short run has")
	}
	port, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := port.Addr().String()
	require.NoError(t, port.Close())
	d := start(t, func(c *Config) { c.AdminListen = address })
	w := d.dial()
	for i := range 1000 {
		w.want(true, "put", fmt.Sprintf("key%d", i), make([]byte, 1000))
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				w.want(true, "put", "key0", make([]byte, 1000))
			}
		}
	}()
	profile, err := os.MkdirTemp("", "rskvd-page")
	require.NoError(t, err)
	defer os.RemoveAll(profile)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
		"--user-data-dir="+profile, "--virtual-time-budget=5000", "--dump-dom", "http://"+address+"/")
	// The browser is several processes: all of them end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	dom, err := cmd.Output()
	close(stop)
	<-stopped
	require.NoError(t, err)
	polls := regexp.MustCompile(`<body data-polls="(\d+)">`).FindSubmatch(dom)
	require.True(t, polls != nil, "the page has not shown anything:\n%s", dom)
	n, err := strconv.Atoi(string(polls[1]))
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, 3, "the page does not follow the daemon")
	for _, want := range []string{
		`class="badge good">serving<`, `<b>1000</b><span>keys</span>`, `fill="var\(--(frozen|mutable)\)"`,
		`<td>writes, in memory</td><td>[0-9.]+</td><td>[0-9.]+ µs`, `head`, `stroke="var\(--write\)"`,
	} {
		require.True(t, regexp.MustCompile(want).Match(dom), "the page does not have %s", want)
	}
}
