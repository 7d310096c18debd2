package daemon

import "testing"

// fakeAccounts maps groups to members; ids have no names.
type fakeAccounts map[string][]string

func (fakeAccounts) UserName(uint32) (string, bool)  { return "", false }
func (fakeAccounts) GroupName(uint32) (string, bool) { return "", false }
func (a fakeAccounts) IsMember(user, group string) bool {
	for _, m := range a[group] {
		if m == user {
			return true
		}
	}
	return false
}

func TestJudge(t *testing.T) {
	accounts := fakeAccounts{"wheel": {"alice"}, "nixbld": {"nixbld1"}}
	alice := Identity{User: "alice", Group: "users", Known: true}
	tests := []struct {
		name             string
		policy           Policy
		id               Identity
		trusted, refused bool
	}{
		{"zero policy lets nobody in", Policy{}, alice, false, true},
		{"root by name", Policy{Trusted: []string{"root"}}, Identity{User: "root", Known: true}, true, false},
		{"allowed by name", Policy{Allowed: []string{"bob", "alice"}}, alice, false, false},
		{"not allowed", Policy{Allowed: []string{"bob"}}, alice, false, true},
		{"everybody", Policy{Allowed: []string{"*"}}, alice, false, false},
		{"everybody trusted", Policy{Trusted: []string{"*"}}, alice, true, false},
		{"trusted need not be allowed", Policy{Trusted: []string{"alice"}, Allowed: []string{"bob"}}, alice, true, false},
		{"group by membership", Policy{Trusted: []string{"@wheel"}}, alice, true, false},
		{"primary group", Policy{Allowed: []string{"@users"}}, alice, false, false},
		{"group that does not exist", Policy{Allowed: []string{"@none"}}, alice, false, true},
		{"group name is no user name", Policy{Allowed: []string{"wheel"}}, alice, false, true},
		{"uid without a name", Policy{Allowed: []string{"1234"}}, Identity{User: "1234", Known: true}, false, false},
		{"build user by primary group", Policy{Allowed: []string{"*"}, Trusted: []string{"*"}, BuildUsersGroup: "nixbld"},
			Identity{User: "nixbld1", Group: "nixbld", Known: true}, false, true},
		{"no group is known, but members are", Policy{Trusted: []string{"@wheel"}}, Identity{User: "alice", GID: NoGroup, Known: true}, true, false},
		{"no group is known, and none is meant", Policy{Allowed: []string{"@", "@users"}}, Identity{User: "alice", GID: NoGroup, Known: true}, false, true},
		{"build user by membership, where no group is known", Policy{Allowed: []string{"*"}, BuildUsersGroup: "nixbld"},
			Identity{User: "nixbld1", GID: NoGroup, Known: true}, false, true},
		{"unknown peer matches no name", Policy{Allowed: []string{""}}, Identity{}, false, true},
		{"unknown peer matches everybody", Policy{Allowed: []string{"*"}}, Identity{}, false, false},
	}
	for _, tt := range tests {
		trusted, err := tt.policy.Judge(tt.id, accounts)
		if trusted != tt.trusted && !tt.refused || (err != nil) != tt.refused {
			t.Errorf("%s: got trusted %v, error %v", tt.name, trusted, err)
		}
		if err != nil && err.Error() != "user '"+tt.id.User+"' is not allowed to connect to the Nix daemon" {
			t.Errorf("%s: got text %q", tt.name, err)
		}
	}
}

func TestIdentityNames(t *testing.T) {
	for _, tt := range []struct {
		id          Identity
		user, group string
	}{
		{Identity{UID: 501, GID: 20}, "501", "20"},
		{Identity{UID: 501, GID: NoGroup}, "501", ""},
	} {
		tt.id.name(fakeAccounts{})
		if tt.id.User != tt.user || tt.id.Group != tt.group {
			t.Errorf("%d:%d is %q:%q, want %q:%q", tt.id.UID, tt.id.GID, tt.id.User, tt.id.Group, tt.user, tt.group)
		}
	}
}

func TestSystemAccounts(t *testing.T) {
	var a SystemAccounts
	if name, ok := a.UserName(0); !ok || name != "root" {
		t.Errorf("uid 0 is %q, %v", name, ok)
	}
	if name, ok := a.UserName(3999999999); ok {
		t.Errorf("uid 3999999999 is %q", name)
	}
	if a.IsMember("nobody-at-all", "root") || a.IsMember("", "no-such-group") {
		t.Error("strangers are members")
	}
}
