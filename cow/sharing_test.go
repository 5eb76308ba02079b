package cow

import (
	"strings"
	"testing"
)

// user starts a process of a user with a session of its own.
func (w *world) user(uid uint32) (pid int, c *client) {
	w.t.Helper()
	pid = w.procs.spawn(1)
	return pid, w.clientAs(pid, uid)
}

// TestWhoIsGivenWhat has one user publish a package that is verified by its own record,
// and looks at what the others see.
func TestWhoIsGivenWhat(t *testing.T) {
	const trusted, stranger = 1001, 1002
	for _, tt := range []struct {
		sharing Sharing
		by      uint32
		shared  bool
	}{
		{"", 0, true}, {"", trusted, true}, {"", me, false},
		{ShareTrusted, 0, true}, {ShareTrusted, trusted, true}, {ShareTrusted, me, false},
		{ShareAll, 0, true}, {ShareAll, me, true},
		{ShareNone, 0, false}, {ShareNone, trusted, false}, {ShareNone, me, false},
	} {
		t.Run(string(tt.sharing)+" "+PrivateSpace(tt.by), func(t *testing.T) {
			w := newWorld(t)
			w.close()
			w.sharing, w.trusted = tt.sharing, []uint32{trusted}
			w.open()
			f := makePackage(t, "tool-1.0-0", nil)
			pid, c := w.user(tt.by)
			c.install(f)
			w.exit(pid)
			if got := w.trust(w.e.SharedSpaceOf(tt.by) + "/pkgs/" + f.dist); got != "verified" {
				t.Errorf("the package is %q", got)
			}
			for _, uid := range []uint32{tt.by, stranger, trusted} {
				pid, c := w.user(uid)
				if want := tt.shared || uid == tt.by; c.exists("pkgs/"+f.dist) != want || c.exists("pkgs/"+f.fn()) != want {
					t.Errorf("uid %d sees it: %v", uid, !want)
				}
				w.exit(pid)
			}
			w.tidy()
		})
	}
}

// TestForgedPackageStaysItsMakers: a user makes a package of a well-known name, with a
// record that fits, before anybody else has it. Nobody else gets it, and the genuine
// one is shared as soon as somebody who is trusted brings it.
func TestForgedPackageStaysItsMakers(t *testing.T) {
	w := newWorld(t)
	w.close()
	w.sharing = ShareTrusted
	w.open()
	forged := makePackage(t, "openssl-3.0-0", map[string]string{"lib/libssl.so": "evil"})
	genuine := makePackage(t, "openssl-3.0-0", map[string]string{"lib/libssl.so": "good"})
	pid, c := w.user(me)
	c.install(forged)
	w.exit(pid)
	victim, v := w.user(1002)
	if v.exists("pkgs/" + forged.dist) {
		t.Fatal("the forged package is given to another user")
	}
	w.exit(victim)
	root, r := w.user(0)
	if r.exists("pkgs/" + forged.dist) {
		t.Fatal("the forged package is given to root")
	}
	r.install(genuine)
	w.exit(root)
	victim, v = w.user(1002)
	v.has(genuine)
	w.exit(victim)
	pid, c = w.user(me)
	c.has(forged) // what was his own stays so
	w.exit(pid)
	w.tidy()
}

// TestSharingCanBeTakenBack: a store that was shared by all is mounted by another rule.
func TestSharingCanBeTakenBack(t *testing.T) {
	w := newWorld(t)
	mine, roots, both := makePackage(t, "mine-1.0-0", nil), makePackage(t, "roots-1.0-0", nil), makePackage(t, "both-1.0-0", nil)
	for uid, fs := range map[uint32][]*fixture{me: {mine, both}, 0: {roots}} {
		pid, c := w.user(uid)
		for _, f := range fs {
			c.install(f)
		}
		w.exit(pid)
	}
	for _, f := range []*fixture{mine, roots, both} {
		if w.trust(shared+f.dist) != "verified" || w.trust(shared+f.fn()) != "verified" {
			t.Fatalf("%s is not shared", f.dist)
		}
	}
	reopen := func(s Sharing, trusted ...uint32) {
		w.close()
		w.sharing, w.trusted = s, trusted
		w.open()
	}
	for _, step := range []struct {
		sharing Sharing
		trusted []uint32
		shared  []*fixture
		private []*fixture // of me
	}{
		{ShareTrusted, []uint32{me}, []*fixture{mine, roots, both}, nil},
		{ShareTrusted, nil, []*fixture{roots}, []*fixture{mine, both}},
		{ShareAll, nil, []*fixture{roots}, []*fixture{mine, both}}, // what was published as one's own stays so
		{ShareNone, nil, nil, []*fixture{mine, both}},
	} {
		reopen(step.sharing, step.trusted...)
		for _, f := range step.shared {
			if w.trust(shared+f.dist) != "verified" || w.trust(shared+f.fn()) != "verified" {
				t.Errorf("%s %v: %s is not shared", step.sharing, step.trusted, f.dist)
			}
		}
		for _, f := range step.private {
			if w.head(shared+f.dist) != nil || w.head(shared+f.fn()) != nil {
				t.Errorf("%s %v: %s is shared", step.sharing, step.trusted, f.dist)
			}
			if w.trust(PrivateSpace(me)+"/pkgs/"+f.dist) != "verified" {
				t.Errorf("%s %v: %s is lost", step.sharing, step.trusted, f.dist)
			}
		}
		pid, c := w.user(me)
		c.has(mine)
		w.exit(pid)
	}
	if w.head(shared+roots.dist) != nil || w.trust(PrivateSpace(0)+"/pkgs/"+roots.dist) != "verified" {
		t.Error("root's package is still shared, or lost")
	}
	if !strings.Contains(w.log.String(), "no longer shared") {
		t.Error("the log does not tell")
	}
}

// TestNobodyWaitsForAStranger: one user's download keeps another waiting only if that
// one would be given it.
func TestNobodyWaitsForAStranger(t *testing.T) {
	w := newWorld(t)
	w.close()
	w.sharing, w.trusted = ShareTrusted, []uint32{1001}
	w.open()
	for by, waits := range map[uint32]map[uint32]bool{
		me:   {me: true, 1001: false, 0: false},
		1001: {me: true, 1001: true, 0: true},
		0:    {me: true, 1001: true},
	} {
		pid, c := w.user(by)
		c.write("pkgs/tool-1.0-0.conda.partial", "half")
		for uid, want := range waits {
			other, o := w.user(uid)
			if who, _ := w.e.flights.others(o.s, false, true); (len(who) > 0) != want {
				t.Errorf("uid %d waits for uid %d: %v", uid, by, !want)
			}
			w.e.flights.end(o.s)
			w.exit(other)
		}
		w.exit(pid)
	}
}
