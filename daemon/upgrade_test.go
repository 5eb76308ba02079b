package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"condafs/control"
	"condafs/cow"
	"condafs/fault"
	"condafs/fs"
	"condafs/handover"
	"condafs/internal/fieldtest"
	"condafs/proc"
	"condafs/shelf"
)

// handed makes an image of these sections and what is handed over with it.
func handed(t *testing.T, sections map[string]any) string {
	t.Helper()
	img := &handover.Image{}
	for name, v := range sections {
		if err := img.Put(name, v); err != nil {
			t.Fatal(err)
		}
	}
	f, err := img.Store()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	fd, err := dup(int(f.Fd())) // the takeover's own
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"image":%d,"new in another version":true}`, fd)
}

// TestBadImages refuses what another program has not written, or one that knows something else, before anything is opened.
func TestBadImages(t *testing.T) {
	whole := func() map[string]any {
		return map[string]any{
			partDaemon: state{Settings: Settings{Store: t.TempDir(), Options: []string{"noatime"}}, Lock: 7}, partMount: &fs.Image{}, partEngine: &cow.Image{},
			partProcesses: []proc.Held{{ID: proc.ID{PID: 1, Start: 2}, FD: 3}}, partShelf: &shelf.Image{Gen: 4, Known: []shelf.Shelved{{Name: "a", Since: 2}}},
		}
	}
	for _, c := range []struct {
		name   string
		change func(map[string]any)
		kind   fault.Kind
		says   string
	}{
		{"an engine without a head", func(map[string]any) {}, fault.Corrupt, "makes no sense"},
		{"no mount", func(m map[string]any) { delete(m, partMount) }, fault.Corrupt, "read the image mount"},
		{"another state", func(m map[string]any) { m[partDaemon] = []string{"x"} }, fault.Corrupt, "read the image daemon"},
		{"another shelf", func(m map[string]any) { m[partShelf] = "x" }, fault.Corrupt, "read the image shelf"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := whole()
			c.change(m)
			to, err := NewTakeover(handed(t, m))
			if err != nil {
				t.Fatal(err)
			}
			err = to.Read()
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v", err)
			}
			if c.name == "an engine without a head" {
				if to.Settings().Options[0] != "noatime" || to.st.Lock != 7 || to.held[0].FD != 3 || to.shelf.Known[0].Since != 2 {
					t.Errorf("%+v", to)
				}
				if got := to.descriptors(); !slices.Equal(got, []int{0, 3, 7, 0, 0}) {
					t.Errorf("descriptors %v", got)
				}
			}
			if to.Back = "it has failed before"; to.GiveBack(err, nil) != err {
				t.Error("the old program gives the daemon to somebody")
			}
		})
	}
	if _, err := NewTakeover("{"); !fault.Is(err, fault.Usage) {
		t.Errorf("got %v", err)
	}
	to, err := NewTakeover(`{"image": 1000000}`)
	if err == nil {
		err = to.Read()
	}
	if err == nil {
		t.Error("a descriptor that is not open is an image")
	}
}

// What becomes of each field when another program takes over; see cow's test of the same name.
func TestEveryFieldIsHandedOver(t *testing.T) {
	for _, h := range []struct {
		of                      any
		image, restored, unused string
	}{
		// Settings go over whole; versions, loggers and signals are each program's own.
		{Config{}, "Settings", "Version Logger Signals", ""},
		{daemon{}, "config started", "store engine shelf rattlerShelf procs scrub mount owner listener server served upgraded manager dismiss",
			"mu endAll figures watched trims stopOnce stop ended endErr changing handOvers upgrading trying giveUp upgradeMu"},
	} {
		fieldtest.All(t, h.of, "hand over what is new (upgrade.go, takeover.go), or say here why not", h.image, h.restored, h.unused)
	}
}

func TestHandedArguments(t *testing.T) {
	args, err := Handed{Image: 5, Self: 6, Other: 7, Back: "--no \"luck\"\n", Stop: true}.args("/m", "--rehearse")
	if err != nil || len(args) != 6 || args[0] != TakeoverCommand || args[3] != "--rehearse" || args[5] != "/m" {
		t.Errorf("%q %v", args, err)
	}
	const want = `{"image":5,"self":6,"other":7,"back":"--no \"luck\"\n","stop":true}`
	if args[2] != want {
		t.Errorf("%s, want %s", args[2], want)
	}
}

// TestUpgradeWithoutDaemon asks those that can't.
func TestUpgradeWithoutDaemon(t *testing.T) {
	d := direct(t)
	if _, err := d.Upgrade(context.Background(), control.UpgradeRequest{Binary: "/bin/true"}, nil); !fault.Is(err, fault.NotMounted) {
		t.Errorf("without a daemon: %v", err)
	}
	if _, err := d.Upgraded(context.Background(), "x"); !fault.Is(err, fault.NotFound) {
		t.Errorf("without a daemon: %v", err)
	}
	a := &api{daemon: &daemon{}}
	if _, err := a.Upgrade(context.Background(), control.UpgradeRequest{}, nil); !fault.Is(err, fault.Unsupported) {
		t.Errorf("without signals: %v", err)
	}
	a.daemon.config.Signals = handover.Catch()
	a.daemon.upgrading.Lock()
	if _, err := a.Upgrade(context.Background(), control.UpgradeRequest{}, nil); !fault.Is(err, fault.Busy) {
		t.Errorf("twice: %v", err)
	}
	a.daemon.setUpgrade(control.Upgrade{ID: "u", To: "v"})
	if u, err := a.Upgraded(context.Background(), "u"); err != nil || u.To != "v" {
		t.Errorf("%+v %v", u, err)
	}
}

// TestNoUpgrades ends a daemon while an upgrade waits for it to have time: it never will.
func TestNoUpgrades(t *testing.T) {
	d := &daemon{handOvers: make(chan *upgrade, 1)}
	d.trying, d.giveUp = context.WithCancel(context.Background())
	program, err := handover.Self()
	if err != nil {
		t.Fatal(err)
	}
	d.upgrading.Lock()
	d.handOvers <- &upgrade{program: program}
	d.noUpgrades()
	if d.trying.Err() == nil || d.upgrading.TryLock() {
		t.Error("another one can begin")
	}
}

func TestCleanUp(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	there := func() bool {
		_, err := os.Lstat(socket)
		return err == nil
	}
	if err := CleanUp(dir, socket); err != nil || !there() {
		t.Errorf("the socket of another daemon: %v, %v", there(), err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // there need be nothing
		if err := CleanUp(dir, socket); err != nil || there() {
			t.Errorf("the socket of a dead one: %v, %v", there(), err)
		}
	}
}
