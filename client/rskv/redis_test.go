package main

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// redisServer is a real one, on a socket of its own.
func redisServer(t *testing.T, args ...string) (address string) {
	program, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("redis-server is not installed")
	}
	socket := filepath.Join(t.TempDir(), "r")
	cmd := exec.Command(program, append([]string{"--port", "0", "--unixsocket", socket, "--save", "", "--dir", filepath.Dir(socket)}, args...)...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	require.Eventually(t, func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, 2*time.Minute, 10*time.Millisecond)
	return "redis+unix://" + socket
}

// What was in Redis must be in the store byte for byte, and the other way round;
// what is no string must be named, and not be half taken.
func TestRedis_RoundTrip(t *testing.T) {
	address := redisServer(t)
	c, err := dialRedis(address + "?db=3")
	require.NoError(t, err)
	want := map[string]string{"from/empty": "", "from/b\x00\r\n": "\xff\r\n$5\r\n", "from/large": strings.Repeat("x", 3<<20)}
	for i := range 2000 {
		want[fmt.Sprint("from/k", i)] = fmt.Sprint("v", i)
	}
	for k, v := range want {
		require.NoError(t, c.do("SET", k[len("from/"):], v))
	}
	require.NoError(t, c.do("RPUSH", "a list", "x"))
	require.NoError(t, c.close())

	f := newFake(t)
	r := rskv(t, f.socket, "", "import", "--prefix", "from/", address+"?db=3")
	require.Equal(t, 2, r.code)
	require.Equal(t, "rskv: \"a list\": is not a string in Redis\nrskv: 1 of the keys were not imported\n", r.stderr)
	require.Contains(t, r.stdout, "imported 2,003 keys, ")
	require.Equal(t, want, f.all())
	require.Equal(t, 2, rskv(t, f.socket, "", "verify", "--prefix", "from/", address+"?db=3").code)
	f.set("from/k7", "other")
	r = rskv(t, f.socket, "", "verify", "--prefix", "from/", address+"?db=3")
	require.Contains(t, r.stderr, `"from/k7": different`)
	f.set("from/k7", "v7")

	var list strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&list, "from/k%d\n", i)
	}
	r = rskv(t, f.socket, list.String()+"from/large\nfrom/none\nelse\n", "export", "--keys-from", "-", "--prefix", "from/", address+"?db=4")
	require.Equal(t, 1, r.code, r.stderr)
	require.Contains(t, r.stdout, "exported 2,001 keys")
	c, err = dialRedis(address + "?db=4")
	require.NoError(t, err)
	defer c.close()
	n, err := c.ask("DBSIZE")
	require.NoError(t, err)
	require.EqualValues(t, 2001, n)
	v, err := c.ask("GET", "k1999")
	require.NoError(t, err)
	require.Equal(t, "v1999", string(v.([]byte)))

	for args, want := range map[string]string{
		"import --format tsv " + address:               "--format is about files",
		"export --keys-from - --format tsv " + address: "--format is about files",
		"import redis://127.0.0.1:1":                   "connect to Redis: ",
		"import " + address + "?db=nine":               "Redis: ERR",
	} {
		r := rskv(t, f.socket, "", strings.Split(args, " ")...)
		require.Equal(t, 2, r.code, args)
		require.Contains(t, r.stderr, want, args)
	}
}

// A server that is out of memory or wants a password must end the transfer with
// its own words, not lose keys silently.
func TestRedis_Refuses(t *testing.T) {
	address := redisServer(t, "--requirepass", "secret", "--maxmemory", "100")
	f := newFake(t)
	f.set("k", "v")
	r := rskv(t, f.socket, "k\n", "export", "--keys-from", "-", address)
	require.Equal(t, 2, r.code)
	require.Contains(t, r.stderr, "NOAUTH")
	withPassword := strings.Replace(address, "redis+unix://", "redis+unix://:secret@", 1)
	r = rskv(t, f.socket, "k\n", "export", "--keys-from", "-", withPassword)
	require.NotContains(t, r.stderr, "secret")
	require.Contains(t, r.stderr, "OOM")
	require.Equal(t, 2, r.code)
	require.Equal(t, 0, rskv(t, f.socket, "", "import", withPassword).code)
}

// A server of another kind, or one that lies about lengths, must give an error
// and not take the memory.
func TestRedis_Garbage(t *testing.T) {
	for _, answer := range []string{
		"", "\r\n", "HTTP/1.1 400 Bad Request\r\n", "$5\r\nab", "$5\r\nabcdefg", "$x\r\n", "*1\r\n", "$999999999999\r\n", ":\r\n", "$536870912\r\nabc",
		strings.Repeat("*1\r\n", 100), "*536870912\r\n:1\r\n", strings.Repeat("y", 1<<20),
	} {
		near, far := net.Pipe()
		go func() {
			buf := make([]byte, 1024)
			_, _ = far.Read(buf)
			_, _ = far.Write([]byte(answer))
			far.Close()
		}()
		v, err := newRedisConn(near).ask("PING")
		require.Error(t, err, "%.40q gave %v", answer, v)
		near.Close()
	}
}
