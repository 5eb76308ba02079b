package cow

import "testing"

// What a session has published as deleted is no longer what it started from, for the
// next daemon too: the same package, made again, is new.
func TestDeletionOutlivesTheDaemon(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.install(f)
	w.exit(pid)
	pid, c = w.process()
	c.remove("pkgs/" + f.dist)
	c.remove("pkgs/" + f.fn())
	if _, err := w.e.Commit(ctx, c.s.ID()); err != nil {
		t.Fatal(err)
	}
	if w.head(shared+f.dist) != nil {
		t.Error("not deleted")
	}
	c.write("pkgs/note", "1")
	w.close()
	w.open()
	w.await()
	again := w.client(pid)
	if again.s.ID() != c.s.ID() {
		t.Fatal("the client is in another session")
	}
	again.install(f)
	w.await()
	if w.trust(shared+f.dist) != "verified" || w.trust(shared+f.fn()) != "verified" {
		t.Error("not published again")
	}
	w.exit(pid)
	w.client(w.procs.spawn(1)).has(f)
}

// A deletion from a group of files counts once: what somebody else makes there
// afterwards is not deleted again.
func TestDeletionFromAGroupCountsOnce(t *testing.T) {
	const name, text = "cache/abcd1234.json", `{"packages": {}}`
	w := newWorld(t)
	write := func() {
		pid, c := w.process()
		c.write("pkgs/"+name, text)
		w.exit(pid)
	}
	write()
	pid, c := w.process()
	c.remove("pkgs/" + name)
	if _, err := w.e.Commit(ctx, c.s.ID()); err != nil {
		t.Fatal(err)
	}
	if w.head(mine+name) != nil {
		t.Error("not deleted")
	}
	write()
	w.exit(pid)
	if w.head(mine+name) == nil {
		t.Error("deleted once more")
	}
}

// A directory that is removed and made anew hides what the session itself had published in it.
func TestDeletionUnderADirectoryMadeAnew(t *testing.T) {
	const name = "pkgs/cache/abcd1234"
	w := newWorld(t)
	pid, c := w.process()
	c.write(name+".json", `{"packages": {}}`)
	if _, err := w.e.Commit(ctx, c.s.ID()); err != nil {
		t.Fatal(err)
	}
	if w.head("u4711/"+name+".json") == nil {
		t.Error("not published")
	}
	c.remove("pkgs/cache")
	c.mkdirs("pkgs/cache")
	c.write("pkgs/cache/other.json", `{"packages": {}}`)
	w.exit(pid)
	if w.head("u4711/"+name+".json") != nil {
		t.Error("not deleted")
	}
	if w.head("u4711/pkgs/cache/other.json") == nil {
		t.Error("what was made in its place is not published")
	}
}
