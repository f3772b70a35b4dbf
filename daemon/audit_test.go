package daemon

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

// TestAudit: something an administrator did, or a stranger tried, that is
// nowhere to be read; a log that who tries again and again can fill.
func TestAudit(t *testing.T) {
	d := start(t, func(c *Config) { c.LogLevel = levels[3] }) // errors only
	w := d.dial()
	w.hello(opt{"client": "op\" audit=forged"})
	w.want(int64(0), "slowlog", "reset")
	for _, step := range []struct {
		method string
		params []any
		line   string
	}{
		{"config", []any{opt{"set": opt{"max_connections": 99}}}, `method=config detail="max_connections=99"`},
		{"checkpoint", nil, "method=checkpoint"},
		{"compact", nil, "method=compact"},
		{"scrub", []any{"start"}, "method=scrub detail=start"},
		{"tasks", []any{"stop", "compaction"}, `method=tasks detail="stop compaction"`},
		{"monitor", []any{"start"}, "method=monitor detail=start"},
		{"backup", []any{"open"}, "method=backup detail=open"},
	} {
		_ = w.ask(step.method, step.params...)
		require.Regexp(t, `level=INFO msg=administration audit=admin uid=\d+ pid=\d+ client="op\\" audit=forged" `+regexp.QuoteMeta(step.line)+"\n", d.log.String())
	}
	lines := strings.Count(d.log.String(), "audit=admin")
	for _, quiet := range [][]any{{"config"}, {"slowlog", "get"}, {"tasks", "get"}, {"scrub", "status"}, {"monitor", "take"}, {"backup", "read", 0}, {"stats"}} {
		_ = w.ask(quiet[0].(string), quiet[1:]...)
	}
	require.Equal(t, lines, strings.Count(d.log.String(), "audit=admin"), "who only looks is logged again and again")

	stranger := start(t, func(c *Config) { c.Roles = rolesText(t, uidText()+"=write") })
	s := stranger.dial()
	for range 100 {
		s.refuse(ipc.CodeForbidden, "checkpoint")
	}
	log := stranger.log.String()
	require.Regexp(t, `level=WARN msg="request denied" audit=denied uid=\d+ pid=\d+ client="" method=checkpoint role=write needs=admin\n`, log)
	require.Less(t, strings.Count(log, "audit=denied"), 20)
	require.Equal(t, int64(100), s.ask("stats").result.(map[string]any)["daemon_denied"])
	require.Eventually(t, func() bool {
		s.refuse(ipc.CodeForbidden, "checkpoint")
		return regexp.MustCompile(`audit=denied .* more=\d+\n`).MatchString(stranger.log.String())
	}, patience, 50*time.Millisecond, "what was left out is not counted")
}

func rolesText(t *testing.T, text string) roleList {
	t.Helper()
	l, err := parseRoles(text)
	require.NoError(t, err)
	return l
}

// TestLogs_Secrets: a key, a value, a cookie or the id of a session, by which
// anybody could take it over, in the log.
func TestLogs_Secrets(t *testing.T) {
	d := start(t, func(c *Config) {
		c.LogLevel, c.SlowlogThreshold = levels[0], time.Microsecond
	})
	w := d.dial()
	secret := []byte("s3cr3t")
	long := bytes.Repeat(secret, ipc.MaxKey/len(secret)+1)
	session := w.hello(opt{"client": "demo"})["session"].([]byte)
	for _, call := range [][]any{
		{"put", secret, secret}, {"get", secret}, {"add", secret, 1}, {"append", secret, secret}, {"exists", secret},
		{"cas", secret, secret, secret}, {"mget", []any{secret, secret}}, {"mput", []any{[]any{secret, secret}}},
		{"mdel", []any{secret}}, {"del", secret}, {"scan", opt{"prefix": secret}}, {"scan", opt{"cursor": secret}},
		{"put", long, secret}, {"get", long}, {"put", secret, secret, opt{"s3cr3t": secret}}, {"put", secret}, {"s3cr3t", secret},
		{"get", opt{"s3cr3t": secret}}, {"config", opt{"set": opt{"nonsense": "1"}}}, {"checkpoint", opt{"cookie": secret}},
		{"monitor", "start"}, {"monitor", "take"}, {"slowlog", "get"}, {"backup", "open"}, {"hello", opt{"session": session}},
		{"put", secret, make([]byte, 1<<20), opt{"sync": true}}, {"get", secret}, {"sync"}, {"tasks", "get"},
	} {
		_ = w.ask(call[0].(string), call[1:]...)
	}
	// A second connection takes the session over, and a third sends nonsense.
	other := d.dial()
	other.hello(opt{"session": session})
	w.closed()
	broken := d.dial()
	broken.send(append(request(1, "s3cr3t", secret), 0xc1))
	broken.closed()
	d.cancel()
	<-d.ended
	log := d.log.String()
	require.Contains(t, log, "level=DEBUG")
	require.Contains(t, log, "connection broken off")
	for name, b := range map[string][]byte{"a key, value or cookie": secret, "a session's id": session} {
		for _, text := range []string{string(b), hex.EncodeToString(b), base64.StdEncoding.EncodeToString(b)[:len(b)], fmt.Sprint(b), fmt.Sprintf("%q", b)} {
			for line := range strings.Lines(log) {
				if strings.Contains(line, text) {
					t.Errorf("%s is in the log: %s", name, line)
				}
			}
		}
	}
}
