package peer

import (
	"context"
	"encoding/csv"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Fsync is when redis-server puts what was written on stable storage.
type Fsync string

// The modes of Redis. Without any, nothing is ever written.
const (
	Never    Fsync = ""
	EverySec Fsync = "everysec" // by itself, every second
	Always   Fsync = "always"   // before a write is answered
)

// Redis starts redis-server in a directory of its own below dir, on a Unix
// socket only.
func Redis(ctx context.Context, dir string, fsync Fsync) (*Server, error) {
	program, err := find("redis-server")
	if err != nil {
		return nil, err
	}
	own, err := makeDir(dir, "redis")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(own, "sock")
	args := []string{"--port", "0", "--unixsocket", socket, "--dir", own, "--save", "", "--daemonize", "no"}
	if fsync != Never {
		args = append(args, "--appendonly", "yes", "--appendfsync", string(fsync))
	} else {
		args = append(args, "--appendonly", "no")
	}
	return start(ctx, "redis-server", socket, program, args...)
}

// RedisVersion is what redis-server says of itself, "" if it is not there.
func RedisVersion(ctx context.Context) string {
	out, err := Command(ctx, "redis-server", "--version").Output()
	if err != nil {
		return ""
	}
	for word := range strings.FieldsSeq(string(out)) {
		if v, ok := strings.CutPrefix(word, "v="); ok {
			return v
		}
	}
	return ""
}

// RedisBenchmark asks a server with redis-benchmark: SET, then GET, of random
// keys of redis-benchmark's form, and returns the requests a second of both.
func RedisBenchmark(ctx context.Context, s *Server, requests, keys uint64, connections, window, valueSize int) (set, get float64, err error) {
	program, err := find("redis-benchmark")
	if err != nil {
		return 0, 0, err
	}
	out, err := Command(ctx, program, "-s", s.Socket, "-t", "set,get", "--csv",
		"-n", fmt.Sprint(requests), "-r", fmt.Sprint(keys), "-c", fmt.Sprint(connections),
		"-P", fmt.Sprint(window), "-d", fmt.Sprint(valueSize)).Output()
	if err != nil {
		return 0, 0, fmt.Errorf("redis-benchmark: %w", err)
	}
	return parseRedisBenchmark(string(out))
}

// parseRedisBenchmark reads the lines "test","rps",... that --csv gives.
func parseRedisBenchmark(out string) (set, get float64, err error) {
	r := csv.NewReader(strings.NewReader(out))
	r.FieldsPerRecord = -1
	lines, err := r.ReadAll()
	if err != nil {
		return 0, 0, fmt.Errorf("redis-benchmark's answer: %w", err)
	}
	for _, line := range lines {
		if len(line) < 2 || line[0] != "SET" && line[0] != "GET" {
			continue
		}
		rate, err := strconv.ParseFloat(line[1], 64)
		if err != nil {
			return 0, 0, fmt.Errorf("redis-benchmark's answer: %w", err)
		}
		if line[0] == "SET" {
			set = rate
		} else {
			get = rate
		}
	}
	if set == 0 || get == 0 {
		return 0, 0, fmt.Errorf("redis-benchmark's answer has no SET or no GET: %.100q", out)
	}
	return set, get, nil
}

// Memcached starts memcached in a directory of its own below dir, on a Unix
// socket only, with memory for megabytes of items.
func Memcached(ctx context.Context, dir string, megabytes int) (*Server, error) {
	program, err := find("memcached")
	if err != nil {
		return nil, err
	}
	own, err := makeDir(dir, "memcached")
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(own, "sock")
	args := []string{"-s", socket, "-m", fmt.Sprint(megabytes)}
	if os.Geteuid() == 0 {
		args = append(args, "-u", "root") // it refuses to run as root unless told so
	}
	return start(ctx, "memcached", socket, program, args...)
}
