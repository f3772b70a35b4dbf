package daemon

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestDeliver: of many clients whom one commit serves, one is not answered, or
// only when others have taken their answers.
func TestDeliver(t *testing.T) {
	d := start(t, func(cfg *Config) { cfg.CommitInterval = 0 })
	const clients, rounds = 4*deliverEach + 1, 20
	all := make([]*wire, clients)
	for i := range all {
		all[i] = d.dial()
	}
	stuck := d.dial() // asks and never reads an answer
	big := make([]byte, 1<<20)
	stuck.send(request(1, "put", []byte("big"), big))
	for id := range uint32(rounds) {
		stuck.send(request(10+id, "get", []byte("big")))
		stuck.send(request(1000+id, "put", []byte("stuck"), []byte("v"), opt{"sync": true}))
		for i, w := range all {
			// Half of them have more in the pipe than one request.
			for n := range uint32(i%2 + 1) {
				w.send(request(2*id+n, "put", []byte{byte(i), byte(id)}, []byte{byte(n)}, opt{"sync": true}))
			}
		}
		for i, w := range all {
			for n := range uint32(i%2 + 1) {
				a := w.must()
				require.Equal(t, 2*id+n, a.id)
				require.Empty(t, a.code, a.reason)
			}
		}
	}
}
