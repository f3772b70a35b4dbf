package daemon

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The names of sockets that a service manager can hand over
// (FileDescriptorName= in a .socket unit).
const (
	givenData  = "data"
	givenAdmin = "admin"
	// givenFirst is the first descriptor that is handed over.
	givenFirst = 3
	// givenMax is more than any unit has reason to hand over.
	givenMax = 16
)

// Manager is what a service manager says in the environment of its services.
type Manager struct {
	NotifySocket string                       // where to tell how it goes; "": nowhere
	Watchdog     time.Duration                // after how long without a word the daemon is dead; 0: never
	Given        map[string]*net.UnixListener // sockets by name, opened already
	Journal      bool                         // stderr is the journal
}

// FromManager reads what systemd or another service manager of its protocols
// says to the process pid in its environment, and takes over the sockets that it
// hands to it: it can be called once in a process.
func FromManager(env func(string) string, pid int) (Manager, error) {
	m := Manager{NotifySocket: env("NOTIFY_SOCKET"), Journal: isJournal(env("JOURNAL_STREAM"), os.Stderr)}
	if us := env("WATCHDOG_USEC"); us != "" && forUs(env("WATCHDOG_PID"), pid) {
		n, err := strconv.ParseInt(us, 10, 64)
		if err != nil || n <= 0 || n > int64(time.Hour/time.Microsecond)*24 {
			return m, fmt.Errorf("WATCHDOG_USEC=%s is not a time", us)
		}
		m.Watchdog = time.Duration(n) * time.Microsecond
	}
	if env("LISTEN_FDS") == "" || env("LISTEN_PID") == "" || !forUs(env("LISTEN_PID"), pid) {
		return m, nil
	}
	count, err := strconv.Atoi(env("LISTEN_FDS"))
	if err != nil || count < 0 || count > givenMax {
		return m, fmt.Errorf("LISTEN_FDS=%s is not a number of sockets", env("LISTEN_FDS"))
	}
	m.Given, err = takeOver(givenFirst, count, env("LISTEN_FDNAMES"))
	return m, err
}

// forUs reports whether a variable meant for one process is meant for pid;
// without one it is.
func forUs(text string, pid int) bool { return text == "" || text == strconv.Itoa(pid) }

// takeOver makes listeners of count descriptors from first on. names are theirs,
// separated by colons; a single socket without a known name is the data socket.
// Those with other names are told by their paths, see claimDoors.
func takeOver(first, count int, names string) (map[string]*net.UnixListener, error) {
	given := map[string]*net.UnixListener{}
	var problems []error
	name := strings.Split(names, ":")
	for i := range count {
		fd := first + i
		unix.CloseOnExec(fd)
		called := givenData
		switch {
		case i < len(name) && (name[i] == givenData || name[i] == givenAdmin):
			called = name[i]
		case count > 1 && i < len(name) && name[i] != "":
			called = name[i]
		case count > 1:
			problems = append(problems, fmt.Errorf("socket %d of %d has no name (FileDescriptorName=): %q", i+1, count, names))
		}
		listener, err := listenerOf(fd)
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("the socket %q of the service manager: %w", called, err))
		case given[called] != nil:
			problems = append(problems, errors.Join(fmt.Errorf("two sockets are named %q", called), listener.Close()))
		default:
			given[called] = listener
		}
	}
	if len(problems) > 0 {
		for _, listener := range given {
			_ = listener.Close()
		}
		return nil, errors.Join(problems...)
	}
	return given, nil
}

// listenerOf makes a listener of a descriptor, which it closes. The socket's
// path stays when the listener is closed: it is the service manager's.
func listenerOf(fd int) (*net.UnixListener, error) {
	file := os.NewFile(uintptr(fd), "given by the service manager")
	if file == nil {
		return nil, fmt.Errorf("%d is no descriptor", fd)
	}
	defer file.Close()
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	l, ok := listener.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%s is not a Unix socket", listener.Addr().Network()), listener.Close())
	}
	l.SetUnlinkOnClose(false)
	return l, nil
}

// isJournal reports whether file is the stream that JOURNAL_STREAM names by
// device and inode.
func isJournal(stream string, file *os.File) bool {
	if stream == "" {
		return false
	}
	var stat unix.Stat_t
	if unix.Fstat(int(file.Fd()), &stat) != nil {
		return false
	}
	return stream == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}
