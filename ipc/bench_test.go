package ipc_test

import (
	"bytes"
	"testing"

	"rskv/ipc"
)

// burst is what a connection reads at once: 128 requests of a 16-byte key and a 100-byte value.
func burst(put bool) []byte {
	key, value := []byte("k000000000012345"), bytes.Repeat([]byte("v"), 100)
	var b []byte
	for id := uint32(1); id <= 128; id++ {
		if put {
			b = ipc.AppendPut(b, 70_000+id, key, value)
		} else {
			b = ipc.AppendGet(b, 70_000+id, key)
		}
	}
	return b
}

// perMessage reports the time of one of the burst's messages.
func perMessage(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/128, "ns/msg")
}

func BenchmarkSplit(b *testing.B) {
	stream := burst(true)
	split := ipc.NewSplitter(ipc.MaxRequest)
	b.ReportAllocs()
	for b.Loop() {
		for rest := stream; len(rest) > 0; {
			n, err := split.Next(rest)
			if err != nil || n == 0 {
				b.Fatal(n, err)
			}
			rest = rest[n:]
		}
	}
	perMessage(b)
}

func benchmarkReceive(b *testing.B, put bool) {
	stream := burst(put)
	lim := ipc.DefaultLimits()
	split := ipc.NewSplitter(ipc.MaxRequest)
	var q ipc.Request
	var c ipc.Call
	b.ReportAllocs()
	for b.Loop() {
		for rest := stream; len(rest) > 0; {
			n, err := split.Next(rest)
			if err != nil || n == 0 {
				b.Fatal(n, err)
			}
			if err := ipc.ParseRequest(rest[:n], &q); err != nil {
				b.Fatal(err)
			}
			if err := ipc.ParseCall(&q, &lim, &c); err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
	}
	perMessage(b)
}

// From the buffer to the Call, as the daemon does it.
func BenchmarkReceiveGet(b *testing.B) { benchmarkReceive(b, false) }
func BenchmarkReceivePut(b *testing.B) { benchmarkReceive(b, true) }

func BenchmarkAppendGet(b *testing.B) {
	key := []byte("k000000000012345")
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = dst[:0]
		for id := range uint32(128) {
			dst = ipc.AppendGet(dst, 70_000+id, key)
		}
	}
	perMessage(b)
}

func BenchmarkAppendBinResult(b *testing.B) {
	value := bytes.Repeat([]byte("v"), 100)
	var dst []byte
	b.ReportAllocs()
	for b.Loop() {
		dst = dst[:0]
		for id := range uint32(128) {
			dst = ipc.AppendBinResult(dst, 70_000+id, value)
		}
	}
	perMessage(b)
}

// From the buffer to the value, as the client does it.
func BenchmarkReceiveAnswer(b *testing.B) {
	value := bytes.Repeat([]byte("v"), 100)
	var stream []byte
	for id := range uint32(128) {
		stream = ipc.AppendBinResult(stream, 70_000+id, value)
	}
	split := ipc.NewSplitter(ipc.MaxAnswer)
	var p ipc.Response
	b.ReportAllocs()
	for b.Loop() {
		for rest := stream; len(rest) > 0; {
			n, err := split.Next(rest)
			if err != nil || n == 0 {
				b.Fatal(n, err)
			}
			if err := ipc.ParseResponse(rest[:n], &p); err != nil {
				b.Fatal(err)
			}
			if _, err := p.Result.Bytes(); err != nil {
				b.Fatal(err)
			}
			rest = rest[n:]
		}
	}
	perMessage(b)
}
