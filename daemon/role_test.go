package daemon

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rskv/ipc"
)

// TestRoles: an entry that counts over one that is nearer, or that lets somebody
// in whom no entry names.
func TestRoles(t *testing.T) {
	const self = 900
	for text, peers := range map[string]map[string]role{
		rolesDefault:             {"0": roleAdmin, "900": roleAdmin, "5": roleWrite, "-1": roleWrite},
		"1234=read":              {"0": roleAdmin, "900": roleAdmin, "1234": roleRead, "5": roleNone, "-1": roleNone},
		"*=admin, 7=none,8=read": {"7": roleNone, "8": roleRead, "9": roleAdmin, "-1": roleAdmin},
		"root=read,900=none":     {"0": roleRead, "900": roleNone, "1": roleNone},
		"@50=write,@60=admin,@70=none,*=read,7=read": {
			"1:50": roleWrite, "1:60": roleAdmin, "1:50,60": roleAdmin, "1:60,50": roleAdmin, "1:70": roleNone,
			"1:70,50": roleWrite, "1:80": roleRead, "1": roleRead, "7:60": roleRead, "0:70": roleAdmin,
		},
	} {
		l, err := parseRoles(text)
		require.NoError(t, err, text)
		require.Equal(t, text, rolesValue{&l}.String())
		for who, want := range peers {
			p := peer{pid: 1}
			id, groups, _ := strings.Cut(who, ":")
			for _, g := range strings.Split(groups, ",") {
				if n, ok := number(g); ok {
					p.groups = append(p.groups, n)
				}
			}
			n, ok := number(id)
			if p.uid = n; !ok {
				p.uid = -1
			}
			require.Equal(t, want, l.of(&p, self), "%s for %s", who, text)
		}
	}
	require.Equal(t, rolesStandard, func() roleList { l, _ := parseRoles(rolesDefault); return l }())
	for _, text := range []string{
		"", "read", "*=", "*=owner", "=read", "@=read", "*=read,", "*=read,*=write", "0=read,root=write", "-1=read",
		"no such user=read", "@no such group=read", "4294967296=read", "* = read", "root=Admin",
	} {
		_, err := parseRoles(text)
		require.Error(t, err, "%q", text)
	}
	l, err := parseRoles("root=read,@root=write")
	require.NoError(t, err)
	require.Equal(t, map[int]role{0: roleRead}, l.users)
	require.Equal(t, map[int]role{0: roleWrite}, l.groups)
}

// TestDoors: a socket that is open wider than was written, or a description that
// is not read back as it was.
func TestDoors(t *testing.T) {
	var got []door
	v := doorsValue{&got}
	require.NoError(t, v.Set("/a mode=0666  roles=*=read,7=write; /b group=0 ;/c;"))
	require.Len(t, got, 3)
	require.Equal(t, "/a mode=0666 roles=*=read,7=write; /b group=0; /c", v.String())
	require.EqualValues(t, 0o666, got[0].mode)
	require.Equal(t, roleWrite, got[0].roles.users[7])
	require.Equal(t, groupName{"0", 0}, got[1].group)
	require.Equal(t, modeDefault, got[2].mode)
	require.Equal(t, rolesStandard, got[2].roles)
	before := v.String()
	require.NoError(t, v.Set(before))
	require.Equal(t, before, v.String())
	for _, text := range []string{"relative", "mode=0666", "/a mode=9", "/a roles=x", "/a /b", "/a color=red", "/a group=no-such-group", "/a mode"} {
		require.Error(t, v.Set(text), text)
		require.Equal(t, before, v.String(), "half a setting is in force")
	}
	require.NoError(t, v.Set(""))
	require.Empty(t, got)

	cfg, _, err := load(t, nil, nil, "roles = ['*=read', '7=write']\nmore_sockets = ['/a mode=0666', '/b']\n")
	require.NoError(t, err)
	require.Equal(t, "*=read, 7=write", cfg.Roles.text)
	require.Len(t, cfg.MoreSockets, 2)
	_, path, err := load(t, nil, nil, "roles = [7]\nmore_sockets = ['/a', '/a']\n")
	require.ErrorContains(t, err, path+":1: roles: must be a string or a list of strings")
	_, _, err = load(t, []string{"--socket", "/s", "--more-sockets", "/s;/s.admin;/a;/a;/" + strings.Repeat("x", ipc.MaxSocketPath)}, nil, "")
	for _, want := range []string{"more_sockets: /s is the path of another", "/s.admin is", "/a is", "a socket's path can have 107"} {
		require.ErrorContains(t, err, want)
	}
}

// TestUsers: a user who has more than its share by connecting again, or one who
// is held to what another has done.
func TestUsers(t *testing.T) {
	const second = int64(1e9)
	var table userTable
	now := 5 * second
	u, ok := table.enter(7, 2, now)
	require.True(t, ok)
	_, ok = table.enter(7, 2, now)
	require.True(t, ok)
	_, ok = table.enter(7, 2, now)
	require.False(t, ok)
	_, ok = table.enter(8, 2, now)
	require.True(t, ok)
	table.leave(u)
	again, ok := table.enter(7, 2, now)
	require.True(t, ok)
	require.Same(t, u, again)

	for range 10 {
		require.True(t, u.take(1, 10, now))
	}
	require.False(t, u.take(1, 10, now))
	require.False(t, u.take(1, 10, now-second), "a clock that goes back gives")
	require.True(t, u.take(1, 10, now+second/10))
	require.False(t, u.take(1, 10, now+second/10))
	now += 2 * second
	require.True(t, u.take(100, 10, now), "a request larger than a burst can never be done")
	require.False(t, u.take(1, 10, now+8*second), "and is not paid for")
	require.True(t, u.take(1, 10, now+10*second))
	require.False(t, u.forgettable(now+20*second), "it is connected")

	now += 20 * second
	for i := range usersKept * 3 {
		v, _ := table.enter(100+i, 0, now)
		if i%2 == 0 {
			require.True(t, v.take(50, 10, now), "%d", i)
		}
		table.leave(v)
	}
	require.Contains(t, table.all, 7)
	require.Less(t, len(table.all), usersKept*2+10, "users are kept for ever")
	require.Contains(t, table.all, 100, "somebody who has not paid is forgotten")
}

// TestProbe_OwnUser: a daemon that is taken for dead because its own user has no
// role.
func TestProbe_OwnUser(t *testing.T) {
	for _, text := range []string{"%=none", "%=read", "*=none"} {
		d := start(t, func(c *Config) {
			roles, err := parseRoles(strings.ReplaceAll(text, "%", uidText()))
			require.NoError(t, err)
			c.Roles = roles
		})
		s := newServer(d.cfg, nil)
		s.address = d.cfg.Socket
		s.health.enter(serving)
		require.NoError(t, s.probe(t.Context()), text)
	}
}

func uidText() string { return strconv.Itoa(os.Geteuid()) }
