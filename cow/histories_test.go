//go:build condafs_faults

package cow

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"condafs/conda"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/failpoint"
	"condafs/internal/longrun"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestHistories lets sessions of several users do random things, stops commits half-way,
// collects garbage beside them, lets the daemon die at any step of them and start again,
// and compares every view and the head with an ideal after each step. It checks that
//
//   - a view shows its snapshot and its own writes, whatever others do or collect;
//   - a package is there whole, or not at all, and a group of repodata whole, too;
//   - the head is what the three-way merge says: no commit is lost, nothing that was
//     deleted comes back, nobody gets more of another user than what is verified;
//   - what does not hold is in quarantine, and nothing else is;
//   - at the end no session, record, file or blob is left that nothing refers to.
//
// It is built with the tag condafs_faults. A failure prints the seed and the file from which `go test -run TestHistories -rapid.seed`
// or `-rapid.failfile` repeats it. -rapid.checks says how many histories there are.
func TestHistories(t *testing.T) {
	packages := historyPackages(t)
	longrun.Checks(t, 12)
	rapid.Check(t, func(rt *rapid.T) {
		h := newHistory(t, rt, packages)
		defer h.close()
		rt.Repeat(h.actions())
		h.finish()
	})
}

func (h *history) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"":                 func(*rapid.T) { h.check() },
		"begin":            h.begin,
		"begin a command":  h.beginCommand,
		"begin once more":  h.begin,
		"install":          h.install,
		"install again":    h.install,
		"extract":          h.extract,
		"download":         h.download,
		"break off":        h.breakOff,
		"tamper":           h.tamper,
		"mend":             h.mend,
		"uninstall":        h.uninstall,
		"clean":            h.clean,
		"write":            h.write,
		"remove":           h.remove,
		"append":           h.appendLines,
		"remove the list":  h.removeList,
		"write repodata":   h.writeRepodata,
		"remove repodata":  h.removeRepodata,
		"write no unit":    h.writeNoUnit,
		"commit":           h.commit,
		"exit":             func(t *rapid.T) { h.end(t, 0) },
		"exit well":        func(t *rapid.T) { h.end(t, 0) },
		"fail":             func(t *rapid.T) { h.end(t, 1) },
		"kill":             func(t *rapid.T) { h.end(t, -9) },
		"discard":          h.discard,
		"leave idle":       h.leaveIdle,
		"import":           h.importPackage,
		"collect":          h.collect,
		"collect slowly":   h.collectSlowly,
		"pause an install": h.pauseInstall,
		"pause an exit":    h.pauseExit,
		"full disk":        h.installOnAFullDisk,
		"meddle":           h.meddle,
		"resume":           h.resume,
		"die":              h.die,
		"stop":             h.stop,
		"hand over":        h.handOver,
	}
}

// packagePaths are the packages of histories; each has several contents.
var packagePaths = []string{"pkgs/a-1.0-0", "pkgs/b-1.0-0"}

// historyPackages makes two contents of each, as two channels have them, and a third
// that claims to be from the archive of the first.
func historyPackages(t *testing.T) []*fixture {
	var list []*fixture
	for _, p := range packagePaths {
		dist := path.Base(p)
		for _, content := range []string{"one", "two", "twin"} {
			list = append(list, makePackage(t, dist, map[string]string{"lib/data": content, "bin/" + dist: dist}))
		}
		list[len(list)-1].record = list[len(list)-3].record
	}
	return list
}

// id names the content of a package; its archive's is the same with ".conda".
func (f *fixture) id() string { return f.dist + "/" + f.files["lib/data"] }

func (f *fixture) path() string { return "pkgs/" + f.dist }

// history is one run: the real thing beside its ideal.
type history struct {
	*ideal
	t        *rapid.T
	w        *world
	packages []*fixture
	byID     map[string]*fixture
	ids      map[hashing.Digest]string // of contents in the store
	sessions []*idealSession
	users    []uint32
	clock    int64

	gate    *gate
	disarm  func()
	paused  *pausing
	sweeper *sweeping
}

func newHistory(t *testing.T, rt *rapid.T, packages []*fixture) *history {
	h := &history{
		t: rt, packages: packages, byID: map[string]*fixture{}, ids: map[hashing.Digest]string{}, clock: 100, gate: newGate(),
		ideal: &ideal{head: facts{}, shaOf: map[string]string{}, recordOf: map[string]string{}, archiveOf: map[string]string{}},
	}
	dir, err := memDir(t)
	if err != nil {
		rt.Fatal(err)
	}
	h.disarm = failpoint.Set(dir, h.gate.reach)
	h.w = closedWorld(rt, dir)
	h.w.laneTick = time.Hour // clients have their lanes looked at: nothing happens between steps
	h.w.open()
	h.storeOwner = h.w.e.owner
	h.users = []uint32{me, me + 1, h.storeOwner}
	for _, f := range packages {
		h.byID[f.id()] = f
		sum := sha256.Sum256([]byte(f.archive))
		h.shaOf[f.id()+".conda"] = hex.EncodeToString(sum[:])
		h.archiveOf[f.id()] = f.id() + ".conda"
		rec, err := conda.ParseRecord(strings.NewReader(f.record))
		if err != nil {
			rt.Fatal(err)
		}
		h.recordOf[f.id()] = rec.SHA256
		h.ids[hashing.Sum([]byte(f.archive))] = f.id() + ".conda"
		for _, content := range f.files {
			h.ids[hashing.Sum([]byte(content))] = content
		}
	}
	return h
}

// close ends a history, also one that has failed half-way.
func (h *history) close() {
	h.letGo(errDead)
	h.disarm()
	h.w.close()
	if err := os.RemoveAll(h.w.dir); err != nil {
		h.t.Error(err)
	}
}

// pick draws a session that is not stopped in the middle of something.
func (h *history) pick(t *rapid.T) *idealSession {
	var free []*idealSession
	for _, s := range h.sessions {
		if !s.kept && (h.paused == nil || h.paused.s != s) {
			free = append(free, s)
		}
	}
	if len(free) == 0 {
		t.Skip("no session")
	}
	s := free[rapid.IntRange(0, len(free)-1).Draw(t, "session")]
	s.client.t = t
	return s
}

func (h *history) pickPackage(t *rapid.T) *fixture {
	return h.packages[rapid.IntRange(0, len(h.packages)-1).Draw(t, "package")]
}

func (h *history) user(t *rapid.T) uint32 {
	return h.users[rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2, 2}).Draw(t, "user")]
}

func (h *history) room(t *rapid.T) {
	if len(h.sessions) >= 4 {
		t.Skip("enough sessions")
	}
}

func (h *history) begin(t *rapid.T) {
	h.room(t)
	h.enter(h.user(t), h.w.procs.spawn(1))
}

// enter lets a process without a session use the mount.
func (h *history) enter(uid uint32, pid int) {
	h.tick()
	s := h.session(uid, pid)
	s.client = h.w.clientAs(pid, uid)
	h.sessions = append(h.sessions, s)
}

// tick gives the next session a start of its own: the daemon stops them in that order.
func (h *history) tick() { h.w.now = h.w.now.Add(time.Second) }

func (h *history) beginCommand(t *rapid.T) {
	h.room(t)
	h.tick()
	s := h.session(h.user(t), h.w.procs.spawn(1))
	s.explicit = true
	s.onFailure = rapid.SampledFrom([]OnFailure{KeepUnits, DiscardAll, KeepOverlay}).Draw(t, "on failure")
	s.ephemeral = rapid.IntRange(0, 4).Draw(t, "ephemeral") == 0
	real, err := h.w.e.StartSession(StartOptions{PID: s.pid, UID: s.uid, GID: s.uid, OnFailure: s.onFailure, Ephemeral: s.ephemeral})
	if err != nil {
		t.Fatal(err)
	}
	s.client = &client{t: t, s: real, v: real.View()}
	h.sessions = append(h.sessions, s)
}

// clear removes a package's directory as conda does before it extracts another one.
func (s *idealSession) clear(pkg string) {
	if s.client.exists(pkg) {
		s.client.rename(pkg, pkg+".c~")
		s.client.remove(pkg + ".c~")
	}
	s.unset(pkg)
}

func (s *idealSession) fetch(f *fixture) {
	s.client.download(f)
	s.set(archivePath(f.path()), shown{id: f.id() + ".conda"})
}

func (s *idealSession) unpack(f *fixture, whole bool) {
	s.clear(f.path())
	s.client.extract(f)
	if whole {
		s.client.finish(f)
	}
	s.set(f.path(), shown{id: f.id(), whole: whole})
}

// touched is what follows when a file of a package, or its archive, was closed.
func (h *history) touched(s *idealSession, pkg string, complete bool) {
	h.settle()
	if s.deferred() || !complete && !s.jobs[pkg] {
		return
	}
	s.jobs[pkg] = true
	s.completed(pkg)
}

func (h *history) install(t *rapid.T) {
	s, f := h.pick(t), h.pickPackage(t)
	s.fetch(f)
	h.touched(s, f.path(), false)
	s.unpack(f, false)
	h.touched(s, f.path(), false)
	s.client.finish(f)
	s.set(f.path(), shown{id: f.id(), whole: true})
	h.touched(s, f.path(), true)
}

// extract unpacks a package beside whichever archive is there, or none.
func (h *history) extract(t *rapid.T) {
	s, f := h.pick(t), h.pickPackage(t)
	s.unpack(f, false)
	h.touched(s, f.path(), false)
	s.client.finish(f)
	s.set(f.path(), shown{id: f.id(), whole: true})
	h.touched(s, f.path(), true)
}

// download gets an archive, or a part of it that passes for the whole.
func (h *history) download(t *rapid.T) {
	s, f := h.pick(t), h.pickPackage(t)
	s.fetch(f)
	h.touched(s, f.path(), false) // whole as it still is, it may prove a package
	if rapid.IntRange(0, 3).Draw(t, "cut off") == 0 {
		s.client.write(archivePath(f.path()), f.archive[:len(f.archive)-30])
		s.set(archivePath(f.path()), shown{id: "cut off"})
		h.touched(s, f.path(), false)
	}
}

// breakOff starts to extract a package and never ends.
func (h *history) breakOff(t *rapid.T) {
	s, f := h.pick(t), h.pickPackage(t)
	s.unpack(f, false)
	h.touched(s, f.path(), false)
}

// tamper changes a file of a package.
func (h *history) tamper(t *rapid.T) {
	s, f := h.pick(t), h.pickPackage(t)
	h.rewrite(s, f, "evil")
}

// mend writes a file of a package as it ought to be.
func (h *history) mend(t *rapid.T) {
	s, f := h.pick(t), h.pickPackage(t)
	h.rewrite(s, f, h.byID[s.view[f.path()].id].dataOr("evil"))
}

func (f *fixture) dataOr(other string) string {
	if f == nil {
		return other
	}
	return f.files["lib/data"]
}

func (h *history) rewrite(s *idealSession, f *fixture, data string) {
	p, ok := s.view[f.path()]
	if !ok {
		h.t.Skip("no package")
	}
	s.client.write(f.path()+"/lib/data", data)
	p.bad = data == "evil"
	s.set(f.path(), p)
	h.touched(s, f.path(), false)
}

// uninstall removes a package, its archive or both.
func (h *history) uninstall(t *rapid.T) {
	s, f := h.pick(t), h.pickPackage(t)
	which := rapid.IntRange(1, 3).Draw(t, "directory 1, archive 2")
	if which&1 != 0 {
		s.clear(f.path())
	}
	if which&2 != 0 {
		s.drop(archivePath(f.path()))
	}
	h.settle()
}

// drop removes what may be there.
func (s *idealSession) drop(p string) {
	if s.client.exists(p) {
		s.client.remove(p)
	}
	s.unset(p)
}

// clean is `conda clean --all --force`: everything goes, also the cache's directory.
func (h *history) clean(t *rapid.T) {
	s := h.pick(t)
	for _, p := range packagePaths {
		s.drop(archivePath(p))
		s.clear(p)
	}
	s.drop("pkgs/cache")
	s.cleaned = true
	for _, p := range groupPaths {
		s.unset(p)
	}
	h.settle()
}

func (h *history) put(t *rapid.T, s *idealSession, p, text string) int64 {
	h.clock++
	at := h.clock - rapid.Int64Range(0, 4).Draw(t, "age")
	s.client.write(p, text)
	s.client.must(s.client.on(p, func(n *Node, _ Attr) error {
		_, err := s.client.v.Setattr(n, nil, SetAttr{Valid: SetMtime, Mtime: unix.Timespec{Sec: 2_000_000_000 + at}})
		return err
	}))
	h.ids[hashing.Sum([]byte(text))] = text
	return (2_000_000_000 + at) * 1e9
}

func (h *history) write(t *rapid.T) {
	s, p := h.pick(t), rapid.SampledFrom(notePaths).Draw(t, "note")
	text := fmt.Sprint("text ", rapid.IntRange(0, 5).Draw(t, "text"))
	s.set(p, shown{id: text, mtime: h.put(t, s, p, text)})
}

func (h *history) remove(t *rapid.T) {
	s, p := h.pick(t), rapid.SampledFrom(notePaths).Draw(t, "note")
	s.drop(p)
}

// appendLines is what conda does to urls.txt.
func (h *history) appendLines(t *rapid.T) {
	s := h.pick(t)
	h.clock++
	line := fmt.Sprintf("https://channel/%d", h.clock)
	text, err := s.client.tryRead(listPath)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		t.Fatal(err)
	}
	s.client.write(listPath, text+line+"\n")
	s.set(listPath, shown{id: text + line + "\n"})
}

func (h *history) removeList(t *rapid.T) { h.pick(t).drop(listPath) }

func (h *history) writeRepodata(t *rapid.T) {
	s := h.pick(t)
	if err := s.client.tryMkdir("pkgs/cache"); err != nil && !errors.Is(err, unix.EEXIST) {
		t.Fatal(err)
	}
	which := rapid.IntRange(1, 3).Draw(t, "members")
	for i, p := range groupPaths {
		if which&(1<<i) == 0 {
			continue
		}
		text := fmt.Sprintf(`{"packages": {}, "info": {}, "version": %d}`, rapid.IntRange(0, 5).Draw(t, "version"))
		bad := rapid.IntRange(0, 7).Draw(t, "cut off") == 0
		if bad {
			text = text[:12]
		}
		s.set(p, shown{id: text, bad: bad, mtime: h.put(t, s, p, text)})
	}
}

func (h *history) removeRepodata(t *rapid.T) {
	s := h.pick(t)
	s.drop(rapid.SampledFrom(groupPaths).Draw(t, "member"))
}

// writeNoUnit leaves behind what is never committed.
func (h *history) writeNoUnit(t *rapid.T) {
	s := h.pick(t)
	s.client.write("pkgs/x-1.0-0.conda.partial", "part")
	s.client.write("pkgs/pid.lock", "1")
	s.client.mkdirs("pkgs/tmpab12cd34/info")
	s.set("pkgs/pid.lock", shown{id: "1"})
}

// commit publishes what a session that goes on holds.
func (h *history) commit(t *rapid.T) {
	s := h.pick(t)
	_, err := h.w.e.Commit(ctx, s.client.s.ID())
	if s.ephemeral {
		if err == nil {
			t.Fatal("an ephemeral session was committed")
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	s.commit(everything, false)
}

func (h *history) forget(s *idealSession) {
	h.sessions = slices.DeleteFunc(h.sessions, func(o *idealSession) bool { return o == s })
}

// end lets a session's process exit with a status, or be killed by a signal.
func (h *history) end(t *rapid.T, status int) {
	s := h.pick(t)
	h.leave(s, status)
	h.settle()
	h.left(s)
}

// leave does it, and left is what follows.
func (h *history) leave(s *idealSession, status int) {
	s.killed = s.killed || status < 0 && !s.explicit
	if !s.explicit {
		h.exit(s.pid, status)
		return
	}
	code := status
	if status < 0 {
		code = 128 - status
	}
	s.exit = &code
	s.kept = code != 0 && s.onFailure == KeepOverlay && !s.ephemeral
	if _, err := h.w.e.End(ctx, s.client.s.ID(), Outcome{ExitCode: code}); err != nil {
		h.t.Fatal(err)
	}
	h.exit(s.pid, 0)
}

func (h *history) exit(pid, status int) {
	if status < 0 {
		h.w.procs.kill(pid)
	} else {
		h.w.procs.exit(pid)
	}
}

func (h *history) left(s *idealSession) {
	if s.kept {
		return
	}
	h.forget(s)
	s.commit(s.policy(), true)
}

// discard throws away what a session holds, or publishes what was kept.
func (h *history) discard(t *rapid.T) {
	var kept []*idealSession
	for _, s := range h.sessions {
		if s.kept {
			kept = append(kept, s)
		}
	}
	if len(kept) == 0 {
		kept = append(kept, h.pick(t))
	}
	s := kept[0]
	h.forget(s)
	if s.kept && rapid.Bool().Draw(t, "publish") {
		if _, err := h.w.e.Commit(ctx, s.client.s.ID()); err != nil {
			t.Fatal(err)
		}
		s.commit(everything, true)
	} else if err := h.w.e.Discard(ctx, s.client.s.ID()); err != nil {
		t.Fatal(err)
	}
	if !s.kept {
		h.exit(s.pid, 0)
	}
	h.settle()
}

// leaveIdle lets a process use the mount again after a long time.
func (h *history) leaveIdle(t *rapid.T) {
	s := h.pick(t)
	if s.cleaned {
		t.Skip("the ideal knows nothing of directories")
	}
	h.w.now = h.w.now.Add(defaultRepinAfter)
	want := !s.explicit && !s.dirty() && s.client.s.snap.Seq() != h.w.store.Head()
	c := h.w.clientAs(s.pid, s.uid)
	h.settle()
	fresh := c.s.ID() != s.client.s.ID()
	if fresh != want {
		t.Fatalf("the idle process has a fresh view: %t, want %t", fresh, want)
	}
	if fresh {
		h.forget(s)
		h.enter(s.uid, s.pid)
	}
}

// importPackage publishes a package past the engine, unless there is one.
func (h *history) importPackage(t *rapid.T) {
	f, uid := h.pickPackage(t), h.user(t)
	if strings.HasSuffix(f.id(), "twin") {
		t.Skip("no import takes it")
	}
	if h.head.seen(uid, f.path()) != nil {
		t.Skip("it is there")
	}
	hold := h.w.store.NewHold()
	defer hold.Release()
	e, tree := h.treeOf(f, uid, hold)
	_, err := h.w.store.Update(ctx, index.CommitInfo{UID: uid}, func(tx *index.Tx) error {
		_, err := tx.PutTree(tree)
		return errors.Join(err, tx.Put(SharedSpace+"/"+f.path(), e))
	})
	if err != nil {
		t.Fatal(err)
	}
	h.head[SharedSpace+"/"+f.path()] = fact{id: f.id(), trust: conda.TrustVerified, owner: uid, sha: h.recordOf[f.id()]}
}

func (h *history) treeOf(f *fixture, uid uint32, hold *index.Hold) (index.Entry, *index.Tree) {
	b := index.NewTreeBuilder(index.TreeEntry{Kind: index.KindDir, Mode: 0o755})
	add := func(p, content string) {
		sums, err := h.w.store.PutBlob(hold, strings.NewReader(content), 0)
		if err == nil {
			err = b.Add(p, index.TreeEntry{Kind: index.KindFile, Mode: 0o644, Digest: sums.Blake3, Size: sums.Size})
		}
		if err != nil {
			h.t.Fatal(err)
		}
	}
	for p, content := range f.files {
		add(p, content)
	}
	add(conda.CompletionMarker, f.record)
	for p, target := range f.links {
		if err := b.Add(p, index.TreeEntry{Kind: index.KindSymlink, Mode: 0o777, Link: target}); err != nil {
			h.t.Fatal(err)
		}
	}
	tree, err := b.Build()
	if err != nil {
		h.t.Fatal(err)
	}
	return index.Entry{
		Kind: index.KindTree, Trust: uint8(conda.TrustVerified), Mode: 0o755, Owner: uid, Size: tree.Bytes(),
		Digest: tree.Digest(), Content: tree.ContentDigest(), SHA256: h.recordOf[f.id()],
	}, tree
}
