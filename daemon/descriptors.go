//go:build linux || darwin

package daemon

import "golang.org/x/sys/unix"

// descriptorsBesides is how many descriptors a daemon wants beside those of its
// clients: segments of the log, checkpoints, operators.
const descriptorsBesides = 4096

// raiseDescriptors raises the limit of open files to what max_connections can
// need, as far as the system lets it. Go has raised the soft limit to the hard one
// already; beyond that needs privileges.
func (s *server) raiseDescriptors(connections int) {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return
	}
	wanted := uint64(connections) + descriptorsBesides
	if limit.Cur >= wanted {
		return
	}
	more := unix.Rlimit{Cur: wanted, Max: max(limit.Max, wanted)}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &more) == nil {
		return
	}
	if limit.Cur < limit.Max {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
	if uint64(connections)+descriptorsBesides/16 > limit.Cur {
		s.log.Warn("the limit of open files is too low for max_connections (LimitNOFILE=, ulimit -n)",
			"limit", limit.Cur, "max_connections", connections)
	}
}
