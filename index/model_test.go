package index

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"condafs/hashing"
	"condafs/internal/longrun"

	"pgregory.net/rapid"
)

// model is what a store should hold: plain maps from path to content. A package is a
// path whose content is a list of its files' contents.
type model struct {
	t    *testing.T
	dir  string
	s    *Store
	head map[string]string
	pins []modelPin
	ids  int // of sessions so far
	// holds are of contents that nothing else need refer to.
	holds []modelHold
}

type modelHold struct {
	h        *Hold
	contents []string
}

type modelPin struct {
	p       *Snapshot
	content map[string]string
	session string // if a session's record keeps it
}

var (
	modelPaths    = []string{"shared/a", "shared/a/b", "shared/c", "u1/a", "u1", "x"}
	modelContents = []string{"1", "2", "3,1", "1,2,3", "2,2", ""}
)

// A store behaves like the maps, whatever is done in whichever order.
func TestModel(t *testing.T) {
	longrun.Checks(t, 12)
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{t: t, dir: memDir(t), head: map[string]string{}}
		m.open(rt)
		defer func() {
			if err := errors.Join(m.s.Close(), os.RemoveAll(m.dir)); err != nil {
				rt.Fatal(err)
			}
		}()
		rt.Repeat(m.actions())
	})
}

func (m *model) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"update":     m.update,
		"updateMore": m.update,
		"together":   m.together,
		"fail":       m.fail,
		"pin":        m.pin,
		"session":    m.session,
		"release":    m.release,
		"hold":       m.hold,
		"use held":   m.useHeld,
		"let go":     m.letGo,
		"gc":         m.gc,
		"reopen":     m.reopen,
		"":           m.check,
	}
}

func (m *model) open(t *rapid.T) {
	s, err := Open(m.dir, Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	m.s = s
}

// change draws some puts and deletions, and returns how to make them and the result.
func (m *model) change(t *rapid.T, h *Hold) (fn func(tx *Tx) error, after map[string]string) {
	type step struct{ path, content string }
	var steps []step
	after = maps.Clone(m.head)
	for range rapid.IntRange(1, 3).Draw(t, "steps") {
		path := rapid.SampledFrom(modelPaths).Draw(t, "path")
		content := rapid.SampledFrom(append(modelContents, "delete")).Draw(t, "content")
		blocked := false
		for above := range after {
			blocked = blocked || strings.HasPrefix(path, above+"/")
		}
		if blocked {
			continue // a file is no parent: TestPutAndDelete
		}
		steps = append(steps, step{path, content})
		maps.DeleteFunc(after, func(p, _ string) bool { return p == path || strings.HasPrefix(p, path+"/") })
		if content != "delete" {
			after[path] = content
		}
	}
	trees := make(map[string]*Tree)
	for _, st := range steps {
		for _, c := range strings.Split(st.content, ",") {
			if _, err := m.s.PutBlob(h, strings.NewReader(c), 0); err != nil {
				t.Fatal(err)
			}
		}
		if strings.Contains(st.content, ",") {
			files := make(map[string]TreeEntry)
			for i, c := range strings.Split(st.content, ",") {
				files[fmt.Sprintf("lib/%d", i)] = fileEntry(c)
			}
			trees[st.content] = buildTree(m.t, files)
		}
	}
	return func(tx *Tx) error {
		for _, st := range steps {
			var err error
			if tree := trees[st.content]; st.content == "delete" {
				err = tx.Delete(st.path)
			} else if tree == nil {
				err = tx.Put(st.path, Entry{Kind: KindFile, Size: int64(len(st.content)), Digest: hashing.Sum([]byte(st.content))})
			} else if _, err = tx.PutTree(tree); err == nil {
				err = tx.Put(st.path, Entry{Kind: KindTree, Digest: tree.Digest(), Size: tree.Bytes()})
			}
			if err != nil {
				return err
			}
		}
		return nil
	}, after
}

func (m *model) update(t *rapid.T) {
	h := m.s.NewHold()
	defer h.Release()
	fn, after := m.change(t, h)
	before := m.s.Head()
	seq, err := m.s.Update(m.t.Context(), CommitInfo{}, fn)
	if err != nil {
		t.Fatal(err)
	}
	if seq < before || seq != m.s.Head() {
		t.Fatalf("seq %d, head %d then %d", seq, before, m.s.Head())
	}
	m.head = after
}

func (m *model) fail(t *rapid.T) {
	h := m.s.NewHold()
	defer h.Release()
	fn, _ := m.change(t, h)
	boom := errors.New("boom")
	_, err := m.s.Update(m.t.Context(), CommitInfo{}, func(tx *Tx) error { return errors.Join(fn(tx), boom) })
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
}

// together makes updates at the same time, each of a directory of its own: in whichever
// groups they are written, all of them count.
func (m *model) together(t *rapid.T) {
	var wg sync.WaitGroup
	for i := range rapid.IntRange(2, 5).Draw(t, "writers") {
		path, content := fmt.Sprintf("w%d/x", i), rapid.SampledFrom([]string{"1", "2", "delete"}).Draw(t, "content")
		if content == "delete" {
			delete(m.head, path)
		} else {
			m.head[path] = content
		}
		wg.Go(func() {
			h := m.s.NewHold()
			defer h.Release()
			_, err := m.s.PutBlob(h, strings.NewReader(content), 0)
			if err == nil {
				_, err = m.s.Update(m.t.Context(), CommitInfo{}, func(tx *Tx) error {
					if content == "delete" {
						return tx.Delete(path)
					}
					return tx.Put(path, contentEntry(content))
				})
			}
			if err != nil {
				m.t.Error(err)
			}
		})
	}
	wg.Wait()
}

func contentEntry(content string) Entry {
	return Entry{Kind: KindFile, Size: int64(len(content)), Digest: hashing.Sum([]byte(content))}
}

// hold brings content that nothing refers to.
func (m *model) hold(t *rapid.T) {
	if len(m.holds) > 2 {
		t.Skip("enough holds")
	}
	h := modelHold{h: m.s.NewHold()}
	for range rapid.IntRange(1, 2).Draw(t, "blobs") {
		c := rapid.SampledFrom([]string{"1", "2", "held 1", "held 2"}).Draw(t, "content")
		if _, err := m.s.PutBlob(h.h, strings.NewReader(c), 0); err != nil {
			t.Fatal(err)
		}
		h.contents = append(h.contents, c)
	}
	m.holds = append(m.holds, h)
}

func (m *model) takeHold(t *rapid.T) modelHold {
	if len(m.holds) == 0 {
		t.Skip("nothing is held")
	}
	i := rapid.IntRange(0, len(m.holds)-1).Draw(t, "hold")
	h := m.holds[i]
	m.holds = slices.Delete(m.holds, i, i+1)
	return h
}

// useHeld refers to content for which only a hold has vouched.
func (m *model) useHeld(t *rapid.T) {
	h := m.takeHold(t)
	_, err := m.s.Update(m.t.Context(), CommitInfo{}, func(tx *Tx) error {
		var errs []error
		for i, c := range h.contents {
			errs = append(errs, tx.Put(fmt.Sprintf("h/%d", i), contentEntry(c)))
		}
		return errors.Join(errs...)
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range h.contents {
		m.head[fmt.Sprintf("h/%d", i)] = c
	}
	h.h.Release()
}

func (m *model) letGo(t *rapid.T) { m.takeHold(t).h.Release() }

func (m *model) pin(t *rapid.T) {
	m.pins = append(m.pins, modelPin{p: m.s.PinHead(), content: maps.Clone(m.head)})
}

func (m *model) session(t *rapid.T) {
	m.pin(t)
	pin := &m.pins[len(m.pins)-1]
	m.ids++
	pin.session = fmt.Sprint("s", m.ids)
	if err := m.s.PutSession(SessionRecord{ID: pin.session, Seq: pin.p.Seq()}); err != nil {
		t.Fatal(err)
	}
}

func (m *model) release(t *rapid.T) {
	if len(m.pins) == 0 {
		t.Skip("no pins")
	}
	i := rapid.IntRange(0, len(m.pins)-1).Draw(t, "pin")
	pin := m.pins[i]
	pin.p.Release()
	if pin.session != "" {
		if err := m.s.DeleteSession(pin.session); err != nil {
			t.Fatal(err)
		}
	}
	m.pins = slices.Delete(m.pins, i, i+1)
}

func (m *model) gc(t *rapid.T) {
	if _, err := m.s.GC(m.t.Context(), GCOptions{}, nil); err != nil {
		t.Fatal(err)
	}
	live := make(map[string]bool)
	for _, state := range append([]modelPin{{content: m.head}}, m.pins...) {
		for _, content := range state.content {
			for _, c := range strings.Split(content, ",") {
				live[c] = true
			}
		}
	}
	for _, h := range m.holds {
		for _, c := range h.contents {
			live[c] = true
		}
	}
	if got := m.s.blobs.Load(); got != int64(len(live)) {
		t.Fatalf("%d blobs after a collection, want %v", got, live)
	}
}

func (m *model) reopen(t *rapid.T) {
	if err := m.s.Close(); err != nil {
		t.Fatal(err)
	}
	m.open(t)
	m.comeBack(t)
}

// comeBack takes up what outlives the daemon.
func (m *model) comeBack(t *rapid.T) {
	m.holds = nil
	m.pins = slices.DeleteFunc(m.pins, func(pin modelPin) bool { return pin.session == "" })
	for i := range m.pins {
		p, err := m.s.Pin(m.pins[i].p.Seq())
		if err != nil {
			t.Fatal(err)
		}
		m.pins[i].p = p
	}
}

func (m *model) check(t *rapid.T) {
	head := m.s.PinHead()
	defer head.Release()
	for _, state := range append([]modelPin{{p: head, content: m.head}}, m.pins...) {
		got := make(map[string]string)
		if err := m.read(state.p, "", got); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(got, state.content) {
			t.Fatalf("state %d has %q, want %q", state.p.Seq(), got, state.content)
		}
	}
}

func (m *model) read(p *Snapshot, dir string, into map[string]string) error {
	list, err := p.List(dir)
	if err != nil {
		return err
	}
	for _, e := range list {
		path := joinPath(dir, e.Name)
		if again, ok, err := p.Get(path); err != nil || !ok || again != e.Entry {
			return fmt.Errorf("%q is listed as %+v but is %+v, %v", path, e.Entry, again, err)
		}
		switch e.Kind {
		case KindDir:
			err = m.read(p, path, into)
		case KindFile:
			into[path] = readAll(m.t, m.s, e.Digest)
		case KindTree:
			into[path], err = m.readTree(e.Digest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *model) readTree(d hashing.Digest) (string, error) {
	tree, err := m.s.loadTree(d)
	if err != nil {
		return "", err
	}
	var contents []string
	for _, e := range tree.All() {
		if e.Kind == KindFile {
			contents = append(contents, readAll(m.t, m.s, e.Digest))
		}
	}
	return strings.Join(contents, ","), nil
}
