package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"rskv/ioring"
)

// What files the sandbox leaves, see Confine.
const (
	lookAt   = landlock.AccessFSSet(ll.AccessFSReadFile | ll.AccessFSReadDir)
	keepIn   = lookAt | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSRemoveFile
	socketIn = keepIn | ll.AccessFSMakeSock
)

// Confine takes from this process, for good, what a daemon with these settings
// does not need. From then on no program it starts has more rights than it
// (no_new_privs), and Landlock leaves it
//
//	the store's directory                read, write, make and remove files
//	the directories of its sockets       the same, and sockets
//	the directory of the settings' file  read
//	/etc/passwd and /etc/group           read, as they are now: for names in roles
//	/proc and /sys                       read
//	the service manager, the journal     connect
//	TCP                                  listen on admin_listen's port; never connect
//	other processes                      no signals, no abstract sockets
//
// and nothing else; what is open already stays open. The directories are made if
// they are missing, because a rule needs something to stand on. It must be called
// before there is a ring, whose workers would keep the rights of their maker.
//
// The sentence says what was applied, or why not all of it. With sandbox=on less
// than all is an error.
func Confine(cfg Config, m Manager) (string, error) {
	if cfg.Sandbox == sandboxOff {
		return "off, as asked for", nil
	}
	if err := ll.AllThreadsPrctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return cfg.unconfined("no_new_privs cannot be set", err)
	}
	abi, err := ll.LandlockGetABIVersion()
	if err != nil {
		return cfg.unconfined("no_new_privs; no Landlock", explainLandlock(err))
	}
	rules, err := sandboxRules(&cfg, m)
	if err != nil {
		return "", err
	}
	_ = time.Now().Local().String() // reads the time zone while that can be read
	if err := sandboxConfig(m).BestEffort().Restrict(rules...); err != nil {
		return cfg.unconfined("no_new_privs; no Landlock", err)
	}
	return fmt.Sprintf("no_new_privs; Landlock, version %d: %s", abi, landlocked(abi)), nil
}

// unconfined is what Confine answers when it could not do all.
func (c *Config) unconfined(what string, why error) (string, error) {
	if c.Sandbox == sandboxOn {
		return "", fmt.Errorf("sandbox: %s: %w", what, why)
	}
	return fmt.Sprintf("%s: %v", what, why), nil
}

func explainLandlock(err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return errors.New("this kernel does not have it (5.13 and later do)")
	case errors.Is(err, unix.EOPNOTSUPP):
		return errors.New("this kernel has it switched off (lsm= on its command line)")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return errors.New("a seccomp filter forbids it")
	}
	return err
}

// landlocked says what a version of the kernel's interface can restrict of what
// Confine asks for.
func landlocked(abi int) string {
	what := []string{"files"}
	for _, more := range []struct {
		since int
		what  string
	}{{4, "TCP"}, {5, "devices"}, {6, "signals and abstract sockets"}, {9, "sockets of other programs"}} {
		if abi >= more.since {
			what = append(what, more.what)
		}
	}
	return strings.Join(what, ", ")
}

// sandboxConfig is everything Landlock can restrict. A service manager that is
// told through an abstract socket has to be reached.
func sandboxConfig(m Manager) landlock.Config {
	c := landlock.V11
	if strings.HasPrefix(m.NotifySocket, "@") {
		const abstract = 1 // LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
		c.Scoped &^= abstract
	}
	return c
}

// sandboxRules are the exceptions from it.
func sandboxRules(cfg *Config, m Manager) ([]landlock.Rule, error) {
	if err := ioring.MakeDir(cfg.Dir); err != nil {
		return nil, fmt.Errorf("make the store's directory: %w", err)
	}
	rules := []landlock.Rule{
		landlock.PathAccess(keepIn, cfg.Dir),
		landlock.PathAccess(lookAt, "/proc", "/sys").IgnoreIfMissing(),
		landlock.PathAccess(ll.AccessFSReadFile, "/etc/passwd", "/etc/group").IgnoreIfMissing(),
	}
	for _, dir := range socketDirs(cfg, m) {
		if err := socketDir(dir); err != nil {
			return nil, err
		}
		rules = append(rules, landlock.PathAccess(socketIn, dir))
	}
	if cfg.ConfigFile != "" {
		rules = append(rules, landlock.PathAccess(lookAt, filepath.Dir(cfg.ConfigFile)).IgnoreIfMissing())
	}
	told := []string{journalSocket}
	if filepath.IsAbs(m.NotifySocket) {
		told = append(told, m.NotifySocket)
	}
	rules = append(rules, landlock.PathAccess(ll.AccessFSResolveUnix, told...).IgnoreIfMissing())
	if address, err := netip.ParseAddrPort(cfg.AdminListen); err == nil {
		rules = append(rules, landlock.BindTCP(address.Port()))
	}
	return rules, nil
}

// socketDirs are the directories in which the daemon makes sockets, not those of
// sockets that the service manager has made.
func socketDirs(cfg *Config, m Manager) []string {
	var dirs []string
	for i, d := range cfg.doors() {
		if i == 0 && m.Given[givenData] == nil || i > 0 && givenAt(m.Given, d.path) == "" {
			dirs = append(dirs, filepath.Dir(d.path))
		}
	}
	if path := cfg.adminPath(); path != "" && m.Given[givenAdmin] == nil {
		dirs = append(dirs, filepath.Dir(path))
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}
