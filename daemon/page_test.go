package daemon

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var pagePicture = flag.String("page.picture", "", "where TestAdmin_Page puts a picture of the page, a PNG; empty: nowhere")

// TestAdmin_Page: a page that is blank, throws an error, or does not follow the
// daemon. It is loaded by a browser, and what that has made of it is looked at.
func TestAdmin_Page(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil || testing.Short() {
		t.Skip("needs Chromium, and more time than a short run has")
	}
	d := start(t, func(c *Config) { c.AdminListen = anyPort })
	address := d.tcpAddress()
	w := d.dial()
	for i := range 60_000 { // more than its memory, and some of it again and again
		w.want(true, "put", fmt.Sprintf("key%d", i%50_000), make([]byte, 1000))
	}
	require.Empty(t, w.ask("checkpoint").code)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				for i := range 20 {
					w.want(true, "put", fmt.Sprintf("key%d", i*7), make([]byte, 1000))
					w.ask("get", fmt.Sprintf("key%d", i*2600))
				}
			}
		}
	}()
	profile, err := os.MkdirTemp("", "rskvd-page")
	require.NoError(t, err)
	defer os.RemoveAll(profile)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	browse := func(what ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, browser, append([]string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
			"--user-data-dir=" + profile, "--hide-scrollbars", "http://" + address + "/"}, what...)...)
		// The browser is several processes: all of them end with it.
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		return cmd.Output()
	}
	dom, err := browse("--virtual-time-budget=5000", "--dump-dom")
	if err == nil && *pagePicture != "" {
		_, err = browse("--virtual-time-budget=20000", "--window-size=1240,1500", "--screenshot="+*pagePicture)
	}
	close(stop)
	<-stopped
	require.NoError(t, err)
	polls := regexp.MustCompile(`<body data-polls="(\d+)">`).FindSubmatch(dom)
	require.True(t, polls != nil, "the page has not shown anything:\n%s", dom)
	n, err := strconv.Atoi(string(polls[1]))
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, 3, "the page does not follow the daemon")
	for _, want := range []string{
		`class="badge good">serving<`, `<b>50.0k</b><span>keys</span>`, `fill="var\(--(frozen|mutable)\)"`,
		`<td>writes, in memory</td><td>[0-9.]+</td><td>[0-9.]+ (µs|ms|s)`, `head`, `of the log is live`, `compaction begins below 50 % live`, `stroke="var\(--write\)"`,
	} {
		require.True(t, regexp.MustCompile(want).Match(dom), "the page does not have %s", want)
	}
}
