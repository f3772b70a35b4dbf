package ordered

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// benchKeys are shapes of keys by number; numbers are spread as a hash does.
var benchKeys = []struct {
	name string
	key  func(dst []byte, i uint64) []byte
}{
	{"8B-random", func(dst []byte, i uint64) []byte { return binary.BigEndian.AppendUint64(dst, i*0x9e3779b97f4a7c15) }},
	{"8B-rising", func(dst []byte, i uint64) []byte { return binary.BigEndian.AppendUint64(dst, i) }},
	{"24B-paths", func(dst []byte, i uint64) []byte {
		return fmt.Appendf(dst, "user/%08d/item/%05d", i*2654435761%100_000, i%65_521)
	}},
}

// BenchmarkTree adds keys that are not there to a growing tree, then looks for keys
// that are, then reads 1,000 in their order. What a key costs in memory is told with
// -benchtime=10000000x, for 10 M keys.
func BenchmarkTree(b *testing.B) {
	for _, shape := range benchKeys {
		tree, domain := newTree(b, 4<<30)
		u := newUser(b, tree, domain)
		var key []byte
		n := uint64(0)
		b.Run(shape.name+"/insert", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				key = shape.key(key[:0], n)
				u.slot.Enter()
				_, _ = tree.Insert(key)
				u.slot.Exit()
				n++
			}
			st := tree.Stats()
			b.ReportMetric(float64(st.Used)/float64(st.Keys), "B/key")
		})
		b.Run(shape.name+"/present", func(b *testing.B) {
			b.ReportAllocs()
			for i := uint64(0); b.Loop(); i++ {
				key = shape.key(key[:0], i*7919%n)
				u.slot.Enter()
				_, _ = tree.Insert(key)
				u.slot.Exit()
			}
		})
		b.Run(shape.name+"/scan1000", func(b *testing.B) {
			b.ReportAllocs()
			var keys Keys
			var next []byte
			for i := uint64(0); b.Loop(); i++ {
				next = shape.key(next[:0], i*7919%n)
				keys.Reset()
				for next != nil && keys.Len() < 1000 {
					u.slot.Enter()
					next, _ = tree.Page(next, 1000-keys.Len(), &keys, next)
					u.slot.Exit()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/key")
		})
	}
}
