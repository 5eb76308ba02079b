package cow

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/proc"

	"golang.org/x/sys/unix"
)

var ctx = context.Background()

// tidy checks that no session has left anything behind.
func (w *world) tidy() {
	w.t.Helper()
	if infos := w.e.Sessions(); len(infos) != 0 {
		w.t.Errorf("sessions are left: %+v", infos)
	}
	if records, err := w.store.Sessions(); err != nil || len(records) != 0 {
		w.t.Errorf("%d records of sessions are left, %v", len(records), err)
	}
	dirs, err := os.ReadDir(filepath.Dir(w.store.SessionDir("x")))
	if err != nil || len(dirs) != 0 {
		w.t.Errorf("directories of sessions are left: %v, %v", dirs, err)
	}
}

// trust returns how an entry of the head is trusted, "" if it isn't there.
func (w *world) trust(path string) string {
	w.t.Helper()
	e := w.head(path)
	if e == nil {
		return ""
	}
	return conda.Trust(e.Trust).String()
}

const (
	mine   = "u4711/pkgs/"
	shared = "shared/pkgs/"
)

func TestPackageIsPublishedWhenItIsComplete(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.download(f)
	c.extract(f)
	w.await()
	if w.trust(shared+f.dist) != "" || w.trust(mine+f.dist) != "" {
		t.Error("published before it was complete")
	}
	c.finish(f)
	w.await()
	if w.trust(shared+f.dist) != "verified" || w.trust(shared+f.fn()) != "verified" {
		t.Error("not published")
	}
	c.has(f) // its own view is the same
	_, other := w.process()
	other.has(f)
	if got := other.read("pkgs/" + f.fn()); got != f.archive {
		t.Error("the archive differs")
	}
	w.exit(pid)
	if _, ok := w.e.Session(c.s.ID()); ok {
		t.Error("the session is still there")
	}
	log, err := w.store.Log(1)
	if err != nil || len(log) != 1 || !slices.Contains(log[0].What, "+ pkgs/tool-1.0-0 (verified)") || log[0].UID != me {
		t.Errorf("the log has %+v, %v", log, err)
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	f := makePackage(t, "tool-1.0-0", nil)
	for name, steps := range map[string][]func(c *client){
		"archive last":   {func(c *client) { c.extract(f); c.finish(f) }, func(c *client) { c.download(f) }},
		"record early":   {func(c *client) { c.mkdirs("pkgs/" + f.dist + "/info"); c.finish(f) }, func(c *client) { c.download(f); c.extract(f) }},
		"moved in place": {func(c *client) { c.install(f) }, func(c *client) { c.rename("pkgs/"+f.dist, "pkgs/tmp"); c.rename("pkgs/tmp", "pkgs/"+f.dist) }},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			pid, c := w.process()
			for _, step := range steps {
				step(c)
				w.await()
			}
			w.exit(pid)
			if w.trust(shared+f.dist) != "verified" || w.trust(shared+f.fn()) != "verified" {
				t.Errorf("the package is %q, the archive %q", w.trust(shared+f.dist), w.trust(shared+f.fn()))
			}
			if w.trust(mine+f.dist) != "" || w.trust(mine+f.fn()) != "" {
				t.Error("there is a private copy")
			}
			_, other := w.process()
			other.has(f)
		})
	}
}

func TestWithoutArchiveItIsConsistent(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.extract(f)
	c.finish(f)
	w.exit(pid)
	if w.trust(mine+f.dist) != "consistent" || w.trust(shared+f.dist) != "" {
		t.Error("it isn't in its user's own space as consistent")
	}
	if w.clientAs(w.procs.spawn(1), me+1).exists("pkgs/" + f.dist) {
		t.Error("another user sees it")
	}
	w.client(w.procs.spawn(1)).has(f)
}

func TestArchiveAlone(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	known := makePackage(t, "known-1.0-0", nil)
	pid, c := w.process()
	c.download(f)
	c.download(known)
	rec := strings.Replace(known.record, "{", `{"depends": [], `, 1)
	c.write("pkgs/cache/ab12.json", `{"info": {"subdir": "noarch"}, "packages.conda": {"known-1.0-0.conda": `+rec+`}}`)
	w.exit(pid)
	if w.trust(mine+f.fn()) != "consistent" {
		t.Errorf("by its structure it is %q", w.trust(mine+f.fn()))
	}
	if w.trust(shared+known.fn()) != "verified" {
		t.Errorf("by repodata it is %q", w.trust(shared+known.fn()))
	}
	if w.trust(mine+"cache/ab12.json") != "opaque" {
		t.Error("repodata is not committed")
	}
}

func TestIncompleteIsDropped(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.write("pkgs/"+f.fn()+".partial", f.archive[:100])
	c.extract(f) // and no record
	c.write("pkgs/pid.lock", "1")
	w.exit(pid)
	_, other := w.process()
	if got := other.list("pkgs"); len(got) != 1 || got[0] != "cache" {
		t.Errorf("pkgs holds %v", got)
	}
	if q, err := w.store.Quarantined(); err != nil || len(q) != 0 {
		t.Errorf("quarantined: %+v, %v", q, err)
	}
}

func TestBadThingsAreQuarantined(t *testing.T) {
	f := makePackage(t, "tool-1.0-0", nil)
	for _, test := range []struct {
		name string
		do   func(c *client)
		path string // what is put aside
	}{
		{"a file changed", func(c *client) { c.extract(f); c.write("pkgs/"+f.dist+"/lib/data", "evil"); c.finish(f) }, "pkgs/" + f.dist},
		{"a file too many", func(c *client) { c.extract(f); c.write("pkgs/"+f.dist+"/lib/more", "evil"); c.finish(f) }, "pkgs/" + f.dist},
		{"a file missing", func(c *client) { c.extract(f); c.remove("pkgs/" + f.dist + "/bin/tool"); c.finish(f) }, "pkgs/" + f.dist},
		{"a link out", func(c *client) {
			c.extract(f)
			c.remove("pkgs/" + f.dist + "/lib/link")
			c.symlink("pkgs/"+f.dist+"/lib/link", "../../../etc")
			c.finish(f)
		}, "pkgs/" + f.dist},
		{"a record of another", func(c *client) {
			c.extract(f)
			c.write("pkgs/"+f.dist+"/info/repodata_record.json", strings.Replace(f.record, `"tool"`, `"fool"`, 1))
		}, "pkgs/" + f.dist},
		{"an archive cut off", func(c *client) { c.write("pkgs/"+f.fn(), f.archive[:len(f.archive)-30]) }, "pkgs/" + f.fn()},
		{"an archive that its record disowns", func(c *client) {
			c.write("pkgs/"+f.fn(), f.archive+"x")
			c.extract(f)
			c.finish(f)
		}, "pkgs/" + f.fn()},
		{"repodata cut off", func(c *client) { c.write("pkgs/cache/ab12.json", `{"packages": {`) }, "pkgs/cache/ab12.json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			pid, c := w.process()
			test.do(c)
			w.await()
			if !c.exists(test.path) {
				t.Error("taken away from a client that may mend it")
			}
			w.exit(pid)
			q, err := w.store.Quarantined()
			if err != nil || len(q) != 1 || q[0].Path != test.path || q[0].Session != c.s.ID() || q[0].UID != me || q[0].Bytes == 0 {
				t.Fatalf("quarantined: %+v, %v", q, err)
			}
			if _, err := os.Stat(filepath.Join(w.store.QuarantineDir(q[0].ID), test.path)); err != nil {
				t.Error(err)
			}
			if w.head(mine+strings.TrimPrefix(test.path, "pkgs/")) != nil || w.head("shared/"+test.path) != nil {
				t.Error("it is in the head")
			}
			if !strings.Contains(w.log.String(), "put into quarantine") {
				t.Error("nobody was warned")
			}
			w.tidy()
		})
	}
}

func TestMendedPackageIsPublished(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	_, c := w.process()
	c.download(f)
	c.extract(f)
	c.write("pkgs/"+f.dist+"/lib/data", "cut o")
	c.finish(f)
	w.await()
	if w.trust(shared+f.dist) != "" {
		t.Error("published")
	}
	c.write("pkgs/"+f.dist+"/lib/data", f.files["lib/data"])
	w.await()
	if w.trust(shared+f.dist) != "verified" {
		t.Error("not published after it was mended")
	}
}

func TestListsAreUnited(t *testing.T) {
	w := newWorld(t)
	pid, c := w.process()
	c.write("pkgs/urls.txt", "a\n")
	w.exit(pid)
	p1, c1 := w.process()
	p2, c2 := w.process()
	c1.write("pkgs/urls.txt", "a\nb\n")
	c2.write("pkgs/urls.txt", "a\n"+w.mount+"/.sessions/"+c2.s.ID()+"/pkgs/c\n")
	w.exit(p1)
	w.exit(p2)
	if got, want := w.headFile(mine+"urls.txt"), "a\nb\n/mnt/condafs/pkgs/c\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := c1.s.UID(); got != me {
		t.Errorf("uid %d", got)
	}
}

func TestRecordTellsNoSessionPath(t *testing.T) {
	recordTells(t, func(w *world, c *client) string {
		return `{"extracted": "` + w.mount + "/.sessions/" + c.s.ID() + `/pkgs", `
	}, `{"extracted": "/mnt/condafs/pkgs", `)
}

func TestRecordTellsNoCredentials(t *testing.T) {
	recordTells(t, func(*world, *client) string { return `{"channel": "https://me:secret@host/t/tk-1/own", ` }, `{"channel": "https://host/own", `)
}

// recordTells checks how a record begins for others that its client lets begin with begin.
func recordTells(t *testing.T, begin func(*world, *client) string, want string) {
	t.Helper()
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.extract(f)
	record := strings.Replace(f.record, "{", begin(w, c), 1)
	c.write("pkgs/"+f.dist+"/info/repodata_record.json", record)
	w.await()
	if got := c.read("pkgs/" + f.dist + "/info/repodata_record.json"); got != record {
		t.Errorf("the client's own file has changed: %s", got)
	}
	w.exit(pid)
	_, other := w.process()
	if got := other.read("pkgs/" + f.dist + "/info/repodata_record.json"); !strings.HasPrefix(got, want) {
		t.Errorf("others see %s", got)
	}
}

func TestRepodataGroupIsReplacedWhole(t *testing.T) {
	w := newWorld(t)
	put := func(c *client, json, info string) {
		c.write("pkgs/cache/ab12.json", json)
		if info != "" {
			c.write("pkgs/cache/ab12.info.json", info)
		}
	}
	pid, c := w.process()
	put(c, `{"packages": {}, "v": 1}`, `{"etag": 1}`)
	w.exit(pid)
	p1, c1 := w.process()
	p2, c2 := w.process()
	put(c1, `{"packages": {}, "v": 2}`, `{"etag": 2}`)
	put(c2, `{"packages": {}, "v": 3}`, "")
	c2.remove("pkgs/cache/ab12.info.json")
	w.exit(p1)
	w.exit(p2)
	if got := w.headFile(mine + "cache/ab12.json"); got != `{"packages": {}, "v": 3}` {
		t.Errorf("the younger one is %s", got)
	}
	if w.head(mine+"cache/ab12.info.json") != nil {
		t.Error("a member of the older group is left")
	}
}

// A group of which the store has lost a file that the session has not changed is given
// up whole, so that clients fetch it again: its session would wait for ever.
func TestRepodataGroupThatLostAFile(t *testing.T) {
	for name, change := range map[string]func(*client){
		"changed": func(c *client) { c.write("pkgs/cache/ab12.info.json", `{"etag": 2}`) },
		"deleted": func(c *client) { c.remove("pkgs/cache/ab12.info.json") },
	} {
		t.Run(name, func(t *testing.T) { losesAFile(t, change) })
	}
}

func losesAFile(t *testing.T, change func(*client)) {
	w := newWorld(t)
	pid, c := w.process()
	c.write("pkgs/cache/ab12.json", `{"packages": {}, "v": 1}`)
	c.write("pkgs/cache/ab12.info.json", `{"etag": 1}`)
	c.write("pkgs/urls.txt", "one\n")
	w.exit(pid)
	pid, c = w.process()
	change(c)
	c.write("pkgs/urls.txt", "one\ntwo\n")
	f := makePackage(t, "good-1.0-0", nil)
	c.install(f)
	for _, p := range []string{"cache/ab12.json", "urls.txt"} {
		d := w.head(mine + p).Digest.String()
		if err := os.Remove(filepath.Join(w.dir, "objects", d[:2], d[2:])); err != nil {
			t.Fatal(err)
		}
		if _, err := w.store.Update(ctx, index.CommitInfo{}, func(tx *index.Tx) error { return tx.Delete(mine + p) }); err != nil {
			t.Fatal(err)
		}
	}
	w.exit(pid)
	if infos := w.e.Sessions(); len(infos) > 0 {
		t.Errorf("sessions: %+v", infos)
	}
	if w.head(mine+"cache/ab12.json") != nil {
		t.Error("what is lost is there again")
	}
	if e := w.head(mine + "cache/ab12.info.json"); e == nil || e.Digest != hashing.Sum([]byte(`{"etag": 1}`)) {
		t.Errorf("half a group is published: %+v", e)
	}
	if got := w.headFile(mine + "urls.txt"); !strings.Contains(got, "one\ntwo\n") {
		t.Errorf("the list is %q", got)
	}
	if w.trust(shared+f.dist) != "verified" {
		t.Error("the rest is not published")
	}
}

func TestPlainFiles(t *testing.T) {
	w := newWorld(t)
	pid, c := w.process()
	c.mkdirs("pkgs/notes/empty")
	c.write("pkgs/notes/a", "1")
	c.symlink("pkgs/notes/b", "a")
	w.exit(pid)
	_, other := w.process()
	if got := other.list("pkgs/notes"); !slices.Equal(got, []string{"a", "b", "empty"}) || other.read("pkgs/notes/b") != "a" {
		t.Errorf("notes holds %v", got)
	}

	pid, c = w.process()
	c.write("pkgs/notes/cut", "off")
	c.write("pkgs/urls.txt", "x\n")
	w.procs.kill(pid)
	w.await()
	if w.head(mine+"notes/cut") != nil {
		t.Error("a file of a process that was killed is committed")
	}
	if w.head(mine+"urls.txt") == nil {
		t.Error("its list is lost")
	}
}

func TestDeletions(t *testing.T) {
	w := newWorld(t)
	a, b, pid0 := makePackage(t, "a-1.0-0", nil), makePackage(t, "b-1.0-0", nil), 0
	pid0, c := w.process()
	c.install(a)
	c.install(b)
	c.mkdirs("pkgs/notes")
	c.write("pkgs/notes/a", "1")
	c.write("pkgs/urls.txt", "a\n")
	w.exit(pid0)

	pid, c := w.process()
	_, witness := w.process()
	c.remove("pkgs/" + a.dist)
	c.remove("pkgs/notes")
	c.remove("pkgs/urls.txt")
	w.await()
	witness.has(a)
	w.exit(pid)
	witness.has(a) // whatever others delete
	_, fresh := w.process()
	for _, p := range []string{"pkgs/" + a.dist, "pkgs/notes", "pkgs/urls.txt"} {
		if fresh.exists(p) {
			t.Errorf("%s is still there", p)
		}
	}
	fresh.has(b)

	stranger := w.procs.spawn(1)
	s := w.clientAs(stranger, me+1)
	s.remove("pkgs/" + b.dist)
	w.exit(stranger)
	_, fresh = w.process()
	fresh.has(b) // it isn't the stranger's
}

func TestDirectoryMadeAnew(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.install(f)
	c.mkdirs("pkgs/notes")
	c.write("pkgs/notes/old", "1")
	c.write("pkgs/notes/both", "1")
	w.exit(pid)
	pid, c = w.process()
	c.remove("pkgs")
	c.mkdirs("pkgs/notes")
	c.write("pkgs/notes/both", "2")
	w.exit(pid)
	_, fresh := w.process()
	if got := fresh.list("pkgs/notes"); !slices.Equal(got, []string{"both"}) || fresh.read("pkgs/notes/both") != "2" {
		t.Errorf("notes holds %v", got)
	}
	if fresh.exists("pkgs/"+f.dist) || fresh.exists("pkgs/"+f.fn()) {
		t.Error("the package is still there")
	}
}

func TestRenamedPackageIsCommittedThere(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.install(f)
	w.exit(pid)
	pid, c = w.process()
	c.rename("pkgs/"+f.dist, "pkgs/aside")
	w.exit(pid)
	_, fresh := w.process()
	if fresh.exists("pkgs/" + f.dist) {
		t.Error("it is still under its old name")
	}
	pid, c = w.process()
	c.rename("pkgs/"+f.fn(), "pkgs/renamed.bin")
	w.exit(pid)
	_, fresh = w.process()
	if fresh.exists("pkgs/"+f.fn()) || fresh.read("pkgs/renamed.bin") != f.archive {
		t.Error("the archive did not move")
	}
}

func TestMovedDirectoryKeepsItsContent(t *testing.T) {
	w := newWorld(t)
	pid, c := w.process()
	c.mkdirs("pkgs/notes/deep")
	c.write("pkgs/notes/deep/a", "1")
	w.exit(pid)
	pid, c = w.process()
	c.rename("pkgs/notes", "pkgs/moved")
	w.exit(pid)
	_, fresh := w.process()
	if fresh.exists("pkgs/notes") || fresh.read("pkgs/moved/deep/a") != "1" {
		t.Error("the directory did not move with its content")
	}
}

func TestRattlerPackage(t *testing.T) { installsByRattler(t, newWorld(t), func(*client, bool) {}) }

const rattlerTemp, rattlerFinal = rattlerDir + "/.tool-1.0-0aB3dE5", rattlerDir + "/tool-1.0-0"

// installsByRattler does what rattler does for a package. Before it gets its name, and after that, unpacked is called.
func installsByRattler(t *testing.T, w *world, unpacked func(c *client, named bool)) {
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	lock, release, err := c.open(rattlerFinal+".lock", unix.O_RDWR)
	c.must(err)
	c.unpackByRattler(f)
	w.await()
	unpacked(c, false)
	c.rename(rattlerTemp, rattlerFinal)
	unpacked(c, true)
	_, err = lock.WriteAt(make([]byte, 7), 0)
	c.must(err)
	_, err = lock.WriteAt([]byte{1}, 7)
	c.must(err)
	w.await()
	if w.head("u4711/"+rattlerFinal) != nil {
		t.Error("published before its metadata was closed")
	}
	release()
	w.await()
	if w.trust("u4711/"+rattlerFinal) != "consistent" || w.headFile("u4711/"+rattlerFinal+".lock") != "\x00\x00\x00\x00\x00\x00\x00\x01" {
		t.Error("not published with its metadata")
	}
	w.exit(pid)
	_, fresh := w.process()
	fresh.hasByRattler(f)
	if got := fresh.list(rattlerDir); !slices.Equal(got, []string{"tool-1.0-0", "tool-1.0-0.lock"}) {
		t.Errorf("%s holds %v", rattlerDir, got)
	}
}

// unpackByRattler unpacks a package as rattler does.
func (c *client) unpackByRattler(f *fixture) {
	c.t.Helper()
	for _, p := range slices.Sorted(maps.Keys(f.files)) {
		c.mkdirs(path.Dir(rattlerTemp + "/" + p))
		c.write(rattlerTemp+"/"+p, f.files[p])
	}
	c.symlink(rattlerTemp+"/lib/link", "data")
}

// hasByRattler checks that a package of rattler's is there.
func (c *client) hasByRattler(f *fixture) {
	c.t.Helper()
	for p, content := range f.files {
		if got := c.read(rattlerFinal + "/" + p); got != content {
			c.t.Errorf("%s holds %q", p, got)
		}
	}
}

// TestManyClients lets clients install the same packages at the same time.
func TestManyClients(t *testing.T) {
	w := newWorld(t)
	var fixtures []*fixture
	for i := range 4 {
		fixtures = append(fixtures, makePackage(t, fmt.Sprintf("tool%d-1.0-0", i), nil))
	}
	var wg sync.WaitGroup
	for i := range 6 {
		pid, c := w.process()
		wg.Go(func() {
			for j := range fixtures {
				f := fixtures[(i+j)%len(fixtures)]
				c.install(f)
				c.has(f)
				c.write("pkgs/urls.txt", fmt.Sprintf("%s by %d\n", f.fn(), i))
			}
			w.procs.exit(pid)
		})
	}
	wg.Wait()
	w.await()
	reader, fresh := w.process()
	for _, f := range fixtures {
		fresh.has(f)
		if w.trust(shared+f.dist) != "verified" || w.trust(shared+f.fn()) != "verified" {
			t.Errorf("%s is not verified", f.dist)
		}
	}
	if got := strings.Count(fresh.read("pkgs/urls.txt"), "\n"); got != 6 {
		t.Errorf("%d lines of 6 clients are in the list", got)
	}
	w.exit(reader)
	w.tidy()
	if r, err := w.store.Verify(ctx, index.VerifyOptions{Full: true}, nil); err != nil || len(r.Problems) != 0 {
		t.Errorf("%+v, %v", r.Problems, err)
	}
}

func TestDeletionOfSomethingNewIsRefused(t *testing.T) {
	w := newWorld(t)
	write := func(text string) {
		pid, c := w.process()
		c.write("pkgs/note", text)
		w.exit(pid)
	}
	write("1")
	pid, c := w.process()
	c.remove("pkgs/note")
	write("2")
	w.exit(pid)
	if got := w.headFile(mine + "note"); got != "2" {
		t.Errorf("note holds %q", got)
	}
}

func TestDeletedIsNotResurrected(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.install(f)
	w.exit(pid)
	toucher, ct := w.process()
	ct.write("pkgs/"+f.dist+"/lib/data", f.files["lib/data"]) // the same again
	pid, c = w.process()
	c.remove("pkgs/" + f.dist)
	w.exit(pid)
	w.exit(toucher)
	if w.head(shared+f.dist) != nil || w.head(mine+f.dist) != nil {
		t.Error("it is back")
	}
}

func TestFirstWins(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	g := makePackage(t, "tool-1.0-0", map[string]string{"lib/data": "other"}) // another channel's
	p1, c1 := w.process()
	p2, c2 := w.process()
	stranger := w.procs.spawn(1)
	c3 := w.clientAs(stranger, me+1)
	c1.install(f)
	w.exit(p1)
	c2.install(g)
	c3.install(g)
	w.await()
	c2.has(g)
	w.exit(p2)
	w.exit(stranger)
	_, fresh := w.process()
	fresh.has(f)
	w.clientAs(w.procs.spawn(1), me+1).has(g) // beside, for its own user
	if w.trust("u4712/pkgs/"+g.dist) != "verified" {
		t.Error("the stranger's is not in his own space")
	}
}

func TestConflictIsQuarantined(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	g := makePackage(t, "tool-1.0-0", map[string]string{"lib/data": "other"})
	g.record = f.record // claims to be out of the same archive
	p1, c1 := w.process()
	p2, c2 := w.process()
	c1.install(f)
	w.exit(p1)
	c2.extract(g)
	c2.finish(g)
	w.exit(p2)
	q, err := w.store.Quarantined()
	if err != nil || len(q) != 1 {
		t.Fatalf("quarantined: %+v, %v", q, err)
	}
	b, err := os.ReadFile(filepath.Join(w.store.QuarantineDir(q[0].ID), "pkgs", g.dist, "lib/data"))
	if err != nil || string(b) != "other" {
		t.Errorf("%q, %v", b, err)
	}
	w.client(w.procs.spawn(1)).has(f)
}

// command starts an explicit session with a client in it.
func (w *world) command(o StartOptions) (*Session, *client) {
	w.t.Helper()
	o.PID, o.UID, o.GID = w.procs.spawn(1), me, me
	s, err := w.e.StartSession(o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s, &client{t: w.t, s: s, v: s.View()}
}

func TestOutcomes(t *testing.T) {
	f := makePackage(t, "tool-1.0-0", nil)
	for _, test := range []struct {
		name              string
		start             StartOptions
		outcome           Outcome
		before            bool // published before the end
		pkg, note, exists bool // after the end
	}{
		{"success", StartOptions{}, Outcome{}, true, true, true, false},
		{"failure", StartOptions{}, Outcome{ExitCode: 1}, true, true, false, false},
		{"success, discard on failure", StartOptions{OnFailure: DiscardAll}, Outcome{}, false, true, true, false},
		{"failure, discard", StartOptions{OnFailure: DiscardAll}, Outcome{ExitCode: 1}, false, false, false, false},
		{"failure, keep", StartOptions{OnFailure: KeepOverlay}, Outcome{ExitCode: 1}, true, true, false, true},
		{"failure, discard as the end says", StartOptions{}, Outcome{ExitCode: 1, OnFailure: KeepOverlay}, true, true, false, true},
		{"ephemeral", StartOptions{Ephemeral: true}, Outcome{}, false, false, false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			s, c := w.command(test.start)
			c.install(f)
			c.write("pkgs/note", "1")
			w.await()
			if (w.trust(shared+f.dist) != "") != test.before {
				t.Errorf("before the end it is %q", w.trust(shared+f.dist))
			}
			if _, err := w.e.End(ctx, s.ID(), test.outcome); err != nil {
				t.Fatal(err)
			}
			if got := w.trust(shared+f.dist) != ""; got != test.pkg {
				t.Errorf("the package is published: %t", got)
			}
			if got := w.head(mine+"note") != nil; got != test.note {
				t.Errorf("the file is published: %t", got)
			}
			if infos := w.e.Sessions(); (len(infos) == 1) != test.exists {
				t.Errorf("sessions: %+v", infos)
			} else if test.exists && infos[0].State != "kept" {
				t.Errorf("its state is %s", infos[0].State)
			}
		})
	}
}

func TestKeptSession(t *testing.T) {
	for _, commit := range []bool{true, false} {
		t.Run(fmt.Sprintf("commit %t", commit), func(t *testing.T) { testKept(t, commit) })
	}
}

func testKept(t *testing.T, commit bool) {
	w := newWorld(t)
	s, c := w.command(StartOptions{OnFailure: KeepOverlay})
	c.write("pkgs/note", "1")
	if _, err := w.e.End(ctx, s.ID(), Outcome{ExitCode: 2}); err != nil {
		t.Fatal(err)
	}
	w.close() // it outlives the daemon
	w.open()
	if infos := w.e.Sessions(); len(infos) != 1 || infos[0].ID != s.ID() || infos[0].State != "kept" {
		t.Fatalf("sessions: %+v", infos)
	}
	if commit {
		if _, err := w.e.Commit(ctx, s.ID()); err != nil {
			t.Fatal(err)
		}
	} else if err := w.e.Discard(ctx, s.ID()); err != nil {
		t.Fatal(err)
	}
	if (w.head(mine+"note") != nil) != commit {
		t.Errorf("commit %t: %+v", commit, w.head(mine+"note"))
	}
	w.tidy()
}

func TestCommitOfALiveSession(t *testing.T) {
	w := newWorld(t)
	pid, c := w.process()
	c.write("pkgs/note", "1")
	bad := makePackage(t, "bad-1.0-0", nil)
	c.extract(bad)
	c.write("pkgs/"+bad.dist+"/lib/data", "evil")
	c.finish(bad)
	h, done, err := c.open("pkgs/open", unix.O_WRONLY)
	c.must(err)
	_, err = h.WriteAt([]byte("x"), 0)
	c.must(err)
	r, err := w.e.Commit(ctx, c.s.ID())
	if err != nil {
		t.Fatal(err)
	}
	if got := w.headFile(mine + "note"); got != "1" || c.read("pkgs/note") != "1" {
		t.Errorf("note holds %q", got)
	}
	if len(r.Pending) != 2 || r.Pending[0].Path != "pkgs/bad-1.0-0" && r.Pending[1].Path != "pkgs/bad-1.0-0" || len(r.Quarantined) != 0 {
		t.Errorf("%+v", r)
	}
	if !c.exists("pkgs/" + bad.dist) {
		t.Error("its overlay has lost something")
	}
	c.write("pkgs/note", "2")
	done()
	w.exit(pid)
	if w.headFile(mine+"note") != "2" || w.headFile(mine+"open") != "x" {
		t.Error("what came after the commit is lost")
	}
	if _, err := w.e.Commit(ctx, "nosuch"); !fault.Is(err, fault.NotFound) {
		t.Errorf("commit of nothing: %v", err)
	}
}

// close(2) returns before the file system hears of it: whoever commits what he has just closed means that, too.
func TestCommitWaitsForFilesThatAreBeingClosed(t *testing.T) {
	w := newWorld(t)
	_, c := w.process()
	h, _, err := c.open("pkgs/late", unix.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan Report)
	go func() {
		r, err := w.e.Commit(ctx, c.s.ID())
		if err != nil {
			t.Error(err)
		}
		done <- r
	}()
	for c.s.awaiting.Load() == 0 {
		runtime.Gosched()
	}
	c.must(h.Release())
	if r := <-done; len(r.Committed) != 1 || r.Committed[0].Path != "pkgs/late" {
		t.Errorf("committed: %+v", r)
	}
}

func TestDiscard(t *testing.T) {
	w := newWorld(t)
	_, c := w.process()
	c.write("pkgs/note", "1")
	if err := w.e.Discard(ctx, c.s.ID()); err != nil {
		t.Fatal(err)
	}
	if w.head(mine+"note") != nil {
		t.Error("committed")
	}
	if err := c.tryWrite("pkgs/note", "2"); err == nil {
		t.Error("a discarded session takes writes")
	}
	w.tidy()
}

func TestStopKeepsOverlays(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	alive, c := w.process()
	dead, c2 := w.process()
	c.write("pkgs/note", "of the living")
	c.install(f)
	c2.write("pkgs/note2", "of the dead")
	w.close()
	w.procs.exit(dead)
	w.open()
	w.await()
	if got := w.headFile(mine + "note2"); got != "of the dead" {
		t.Errorf("note2 holds %q", got)
	}
	again := w.client(alive)
	if again.s.ID() != c.s.ID() || again.read("pkgs/note") != "of the living" {
		t.Error("a process that lives on has lost its overlay")
	}
	again.has(f)
	w.exit(alive)
	if got := w.headFile(mine + "note"); got != "of the living" {
		t.Errorf("note holds %q", got)
	}
	w.tidy()
}

func TestRemoteLimits(t *testing.T) {
	w := newWorld(t)
	if _, err := w.e.StartSession(StartOptions{PID: 99999, UID: me}); !fault.Is(err, fault.NotFound) {
		t.Errorf("a session of nobody: %v", err)
	}
	_, c := w.process()
	if _, err := w.e.End(ctx, c.s.ID(), Outcome{}); !fault.Is(err, fault.Usage) {
		t.Errorf("the end of an implicit session: %v", err)
	}
	s, _ := w.command(StartOptions{Ephemeral: true})
	if _, err := w.e.Commit(ctx, s.ID()); !fault.Is(err, fault.Usage) {
		t.Errorf("commit of an ephemeral session: %v", err)
	}
}

func TestHeadViewFollows(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	h := &client{t: t, v: w.e.HeadView()}
	if h.exists("pkgs/" + f.dist) {
		t.Error("it is there already")
	}
	pid, c := w.process()
	c.install(f)
	w.exit(pid)
	h.has(f)
	if err := h.tryWrite("pkgs/x", "1"); err == nil {
		t.Error("it takes writes")
	}
}

func TestSessionsAreListed(t *testing.T) {
	w := newWorld(t)
	_, c := w.process()
	c.write("pkgs/urls.txt", "https://channel/a\n")
	infos := w.e.Sessions()
	if len(infos) != 1 || !infos[0].Dirty || infos[0].OverlayBytes != 18 || infos[0].State != "active" || len(infos[0].Members) != 1 {
		t.Errorf("%+v", infos)
	}
}

func TestClosedEngineRefuses(t *testing.T) {
	w := newWorld(t)
	if err := w.e.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := w.e.SessionFor(w.procs.spawn(1), me, me, false); !fault.Is(err, fault.NotMounted) {
		t.Errorf("a session of a closed engine: %v", err)
	}
}

// A command's parent may hear of its end before the engine does. The report is about all that it did.
func TestEndBeforeTheExitIsNoticed(t *testing.T) {
	w := newWorld(t)
	parent := w.procs.spawn(1)
	s, err := w.e.StartSession(StartOptions{PID: parent, UID: me, GID: me, OnFailure: KeepUnits})
	if err != nil {
		t.Fatal(err)
	}
	command := w.procs.spawn(parent)
	w.client(command).write("pkgs/f-failed", "x")
	tell := w.procs.die(command, proc.Exit{Known: true, Code: 5})
	type result struct {
		r   Report
		err error
	}
	ended := make(chan result)
	go func() {
		r, err := w.e.End(ctx, s.ID(), Outcome{ExitCode: 5})
		ended <- result{r, err}
	}()
	time.Sleep(20 * time.Millisecond) // long enough for End not to wait, if it would not
	tell()
	if got := <-ended; got.err != nil || len(got.r.Dropped) != 1 || got.r.Dropped[0].Path != "pkgs/f-failed" {
		t.Errorf("%+v, %v", got.r, got.err)
	}
}

func TestEndAll(t *testing.T) {
	w := newWorld(t)
	_, c := w.process()
	c.write("pkgs/note", "1")
	if err := w.e.EndAll(ctx); err != nil {
		t.Fatal(err)
	}
	if got := w.headFile(mine + "note"); got != "1" {
		t.Errorf("note holds %q", got)
	}
	w.tidy()
}
