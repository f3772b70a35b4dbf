package daemon

// peer is who is on the other end of a connection, as the kernel knows it from
// the moment of the connect.
type peer struct {
	uid    int   // -1: not known
	pid    int   // -1: not known
	groups []int // the first of them and the supplementary ones
}

// unknownPeer is nobody in particular: it has the role of others.
var unknownPeer = peer{-1, -1, nil}
