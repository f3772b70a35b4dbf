package daemon

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/engine"
	"rskv/ipc"
)

// benchKeys is how many keys of eight bytes, with values of 100, a benchmark
// reads in an order that no cache can follow.
const benchKeys = 1 << 20

func benchKey(i uint64) []byte {
	return binary.BigEndian.AppendUint64(nil, i*0x9e3779b97f4a7c15)
}

func benchDaemon(b *testing.B) *running {
	d := start(b, func(c *Config) { c.Memory = 512 << 20 })
	w := d.dial()
	value := make([]byte, 100)
	for i := uint64(0); i < benchKeys; i += 1 << 14 {
		pairs := make([][2][]byte, 0, 1<<14)
		for j := i; j < i+1<<14; j++ {
			pairs = append(pairs, [2][]byte{benchKey(j), value})
		}
		w.want(int64(len(pairs)), "mput", pairs)
	}
	return d
}

// BenchmarkGet measures gets over the socket, codec included, pipelined on
// several connections: the client only compares the number of bytes.
func BenchmarkGet(b *testing.B) {
	d := benchDaemon(b)
	for _, c := range []struct {
		name               string
		connections, depth int
	}{{"P=1x1", 1, 1}, {"P=1x50", 50, 1}, {"P=16x50", 50, 16}, {"P=128x8", 8, 128}, {"P=128x2", 2, 128}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			answer := len(ipc.AppendBinResult(nil, 1, make([]byte, 100)))
			var wg sync.WaitGroup
			for n := range c.connections {
				wg.Go(func() { benchGets(b, d, n, b.N/c.connections/c.depth+1, c.depth, answer) })
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
}

// benchGets sends rounds of depth gets on one connection.
func benchGets(b *testing.B, d *running, seed, rounds, depth, answer int) {
	conn, err := net.Dial("unix", d.cfg.Socket)
	require.NoError(b, err)
	defer conn.Close()
	next := uint64(seed) * 977
	var out []byte
	in := make([]byte, depth*answer)
	for range rounds {
		out = out[:0]
		for range depth {
			next = (next*6364136223846793005 + 1442695040888963407)
			out = ipc.AppendGet(out, 1, binary.BigEndian.AppendUint64(make([]byte, 0, 8), (next>>40)%benchKeys*0x9e3779b97f4a7c15))
		}
		if _, err := conn.Write(out); err != nil {
			b.Error(err)
			return
		}
		if _, err := io.ReadFull(conn, in); err != nil {
			b.Error(err)
			return
		}
	}
}

// BenchmarkCounting is everything that a request does for metrics only, in bursts
// of several lengths and on two connections at a time: what of BenchmarkGet at the
// same depth is their price.
func BenchmarkCounting(b *testing.B) {
	for _, depth := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("burst=%d", depth), func(b *testing.B) {
			b.ReportAllocs()
			s := newServer(Defaults(), nil)
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() {
					c := &conn{server: s, lane: s.traffic.lane()}
					k, op := call{method: ipc.MethodGet}, engine.Op{Kind: engine.OpGet, Found: true}
					for range b.N/2/depth + 1 {
						c.began = c.beganAt()
						count(&c.lane.bytesIn, 1)
						for range depth {
							c.batch.counts.request(k.method)
							c.batch.counts.end(k.method, outcomeOf(&k, &op))
							c.finished(&k)
						}
						c.lane.tally(&c.batch.counts)
						count(&c.lane.bytesOut, 1)
						c.timeBurst()
					}
				})
			}
			wg.Wait()
		})
	}
}
