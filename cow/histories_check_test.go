//go:build condafs_faults

package cow

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"condafs/conda"
	"condafs/hashing"
	"condafs/index"

	"golang.org/x/sys/unix"
)

// check compares all views and the head with the ideal.
func (h *history) check() {
	h.settle()
	for _, s := range h.sessions {
		if h.paused == nil || h.paused.s != s || !locked(h.paused.at) && h.paused.pkg != "" {
			h.compare(fmt.Sprintf("the view of process %d", s.pid), s)
		}
	}
	h.checkHead()
	if h.paused != nil {
		h.paused.look(h.head)
	}
	uid := h.users[int(h.clock)%len(h.users)]
	fresh := h.session(uid, h.w.procs.spawn(1))
	fresh.client = h.w.clientAs(fresh.pid, uid)
	h.compare(fmt.Sprintf("a fresh view of user %d", uid), fresh)
	h.w.procs.exit(fresh.pid)
	h.settle()
	if h.paused == nil {
		h.checkRecords()
	}
}

// compare demands that a view shows what it should.
func (h *history) compare(what string, s *idealSession) {
	c := s.client
	c.t = h.t
	for _, p := range slices.Concat(notePaths, groupPaths, []string{listPath}) {
		want, there := s.view[p]
		got, err := c.tryRead(p)
		if got != want.id || (err == nil) != there || !there && !errors.Is(err, unix.ENOENT) {
			h.t.Fatalf("%s: %s holds %q (%v), want %q", what, p, got, err, want.id)
		}
	}
	for _, p := range packagePaths {
		h.compareArchive(what, s, archivePath(p))
		want, there := s.view[p]
		if !there {
			if c.exists(p) {
				h.t.Fatalf("%s: %s is there", what, p)
			}
			continue
		}
		h.comparePackage(what, c, p, want)
	}
}

func (h *history) compareArchive(what string, s *idealSession, p string) {
	want, there := s.view[p]
	got, err := s.client.tryRead(p)
	f := h.byID[strings.TrimSuffix(want.id, ".conda")]
	switch {
	case (err == nil) != there || !there && !errors.Is(err, unix.ENOENT):
		h.t.Fatalf("%s: %s: %v, want %q", what, p, err, want.id)
	case there && f != nil && got != f.archive:
		h.t.Fatalf("%s: %s differs from %s", what, p, want.id)
	}
}

func (h *history) comparePackage(what string, c *client, p string, want shown) {
	for rel, data := range h.byID[want.id].files {
		if want.bad && rel == "lib/data" {
			data = "evil"
		}
		if got, err := c.tryRead(p + "/" + rel); err != nil || got != data {
			h.t.Fatalf("%s: %s/%s holds %q (%v), want that of %s", what, p, rel, got, err, want.id)
		}
	}
	record, err := c.tryRead(p + "/" + conda.CompletionMarker)
	if (err == nil) != want.whole || want.whole && !strings.Contains(record, h.recordOf[want.id]) {
		h.t.Fatalf("%s: the record of %s: %q, %v; it is whole: %t", what, p, record, err, want.whole)
	}
}

// checkHead compares every entry of the head with the ideal's.
func (h *history) checkHead() {
	if d := h.differs(h.realHead()); d != "" {
		h.t.Fatalf("%s\n%s", d, h.story())
	}
}

// story tells what has led to the head, for a failure that its seed does not repeat.
func (h *history) story() string {
	const last = 25
	commits, err := h.w.store.Log(last)
	if err != nil {
		return err.Error()
	}
	lines := []string{"The last commits:"}
	for _, c := range slices.Backward(commits) {
		lines = append(lines, fmt.Sprintf("  %d user %d session %s: %s", c.Seq, c.UID, c.Session, strings.Join(c.What, ", ")))
	}
	log := strings.Split(h.w.log.String(), "\n")
	lines = append(lines, "The end of the log:")
	return strings.Join(append(lines, log[max(0, len(log)-2*last):]...), "\n")
}

// realHead reads all of the head.
func (h *history) realHead() facts {
	snap := h.w.store.PinHead()
	defer snap.Release()
	got := facts{}
	if err := h.entries(snap, "", got); err != nil {
		h.t.Fatal(err)
	}
	return got
}

// differs tells what of a head is not as it should be.
func (h *history) differs(got facts) string {
	for p, want := range h.head {
		e, ok := got[p]
		timed := slices.ContainsFunc(slices.Concat(notePaths, groupPaths), func(n string) bool { return strings.HasSuffix(p, "/"+n) })
		if !timed {
			e.mtime, want.mtime = 0, 0
		}
		if !ok || e != want {
			return fmt.Sprintf("the head has %+v (%t) at %s, want %+v", e, ok, p, want)
		}
	}
	for p, e := range got {
		if _, ok := h.head[p]; !ok {
			return fmt.Sprintf("the head has %+v at %s, want nothing", e, p)
		}
	}
	return ""
}

func (h *history) entries(snap *index.Snapshot, dir string, into facts) error {
	list, err := snap.List(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		p := strings.TrimPrefix(dir+"/"+e.Name, "/")
		if e.Kind == index.KindDir {
			if err := h.entries(snap, p, into); err != nil {
				return err
			}
			continue
		}
		var tree *index.Tree
		if e.Kind == index.KindTree {
			if tree, err = h.w.store.Tree(e.Digest); err != nil {
				return err
			}
		}
		_, at, _ := strings.Cut(p, "/")
		into[p] = fact{id: h.idOf(at, &e.Entry, tree, h.blob), trust: conda.Trust(e.Trust), owner: e.Owner, sha: e.SHA256, mtime: e.Mtime}
	}
	return nil
}

// idOf returns the id of a content of the store. Of a package it looks at everything.
func (h *history) idOf(p string, e *index.Entry, tree *index.Tree, read func(hashing.Digest) string) string {
	if p == listPath {
		return read(e.Digest)
	}
	if tree == nil {
		return h.ids[e.Digest]
	}
	files := map[string]string{}
	for rel, te := range tree.All() {
		if te.Kind == index.KindFile && rel != conda.CompletionMarker {
			files[rel] = read(te.Digest)
		}
	}
	for id, f := range h.byID {
		if f.dist == path.Base(p) && maps.Equal(f.files, files) {
			return id
		}
	}
	return fmt.Sprint("no package: ", files)
}

func (h *history) blob(d hashing.Digest) string {
	f, err := h.w.store.OpenBlob(d)
	if err != nil {
		h.t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		h.t.Fatal(err)
	}
	return string(b)
}

// checkRecords compares what is known of sessions and of what was put aside.
func (h *history) checkRecords() {
	if infos := h.w.e.Sessions(); len(infos) != len(h.sessions) {
		h.t.Fatalf("sessions: %+v, want %d", infos, len(h.sessions))
	}
	records, err := h.w.store.Quarantined()
	if err != nil {
		h.t.Fatal(err)
	}
	var got []string
	for _, r := range records {
		got = append(got, r.Path)
	}
	want := slices.Sorted(slices.Values(h.quarantined))
	if slices.Sort(got); !slices.Equal(got, want) {
		h.t.Fatalf("in quarantine are %v, want %v", got, want)
	}
}

// finish ends all sessions. Nothing may be left then that nothing refers to.
func (h *history) finish() {
	h.letGo(nil)
	for _, s := range slices.Clone(h.sessions) {
		s.client.t = h.t
		if s.kept {
			h.forget(s)
			s.client.must(h.w.e.Discard(ctx, s.client.s.ID()))
			continue
		}
		h.leave(s, 0)
		h.settle()
		h.left(s)
	}
	h.check()
	h.w.tidy()
	if _, err := h.w.store.GC(ctx, index.GCOptions{}, nil); err != nil {
		h.t.Fatal(err)
	}
	h.checkHead()
	r, err := h.w.store.Verify(ctx, index.VerifyOptions{Full: true}, nil)
	if err != nil || len(r.Problems) > 0 {
		h.t.Fatalf("the store at the end: %+v, %v", r, err)
	}
	if want := h.reachable(); int(r.Blobs) != want {
		h.t.Fatalf("%d blobs after a collection, want %d", r.Blobs, want)
	}
	if left, err := os.ReadDir(h.w.store.StagingDir()); err != nil || len(left) > 0 {
		h.t.Fatalf("left in staging: %v, %v", left, err)
	}
}

// reachable counts the blobs that the head refers to.
func (h *history) reachable() int {
	snap := h.w.store.PinHead()
	defer snap.Release()
	blobs := map[hashing.Digest]bool{}
	var walk func(dir string)
	walk = func(dir string) {
		list, err := snap.List(dir)
		if err != nil {
			h.t.Fatal(err)
		}
		for _, e := range list {
			switch e.Kind {
			case index.KindDir:
				walk(strings.TrimPrefix(dir+"/"+e.Name, "/"))
			case index.KindFile:
				blobs[e.Digest] = true
			case index.KindTree:
				tree, err := h.w.store.Tree(e.Digest)
				if err != nil {
					h.t.Fatal(err)
				}
				for _, te := range tree.All() {
					if te.Kind == index.KindFile {
						blobs[te.Digest] = true
					}
				}
			}
		}
	}
	walk("")
	return len(blobs)
}
