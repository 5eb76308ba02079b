package cow

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
)

// shelvePatience is how long the opening of a package's list of files waits for the
// package to be checked and published: about what copying it through the mount would take.
const shelvePatience = 3 * time.Second

// Reading is called before a client opens a file to read it, and may wait like OpenDir.
// It reports true if the name must be looked up again: Open would answer ESTALE, upon
// which the kernel does so by itself. pid is the client's process or thread, 0 if unknown.
func (v *View) Reading(n *Node, pid int, cancel <-chan struct{}) (again bool) {
	if v.onReading == nil || !n.isFile() {
		return false
	}
	v.mu.RLock()
	var path string
	ok := len(n.links) == 1 && n.links[0].name == pathsName
	if ok {
		path, ok = n.path()
	}
	v.mu.RUnlock()
	if !ok {
		return false
	}
	pkg, ok := strings.CutSuffix(path, "/"+conda.PathsPath)
	if !ok {
		return false
	}
	v.queue.drain() // whoever has taken the package over may not have told yet that it is complete
	return v.onReading(pkg, pid, cancel)
}

var pathsName = lastName(conda.PathsPath)

// packageAt tells which package the view shows at a path, if it is one that nothing
// has been changed of.
func (v *View) packageAt(path string) (tree hashing.Digest, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	dir, obj, err := v.packageIn(path)
	if dir != nil {
		v.tidy(dir)
	}
	if err != nil || obj == nil {
		return hashing.Digest{}, false
	}
	return obj.pkg.digest, true
}

// packageIn returns the package at a path as packageAt does, and the directory that it is
// in, for the caller to tidy. v.mu is held for writing.
func (v *View) packageIn(path string) (*Node, *object, error) {
	dirPath, name := splitPath(path)
	dir, err := v.walk(dirPath)
	if err != nil {
		return nil, nil, err
	}
	f, err := v.find(dir, name, true)
	if err != nil {
		return dir, nil, err
	}
	obj := f.lower
	if f.node != nil && !f.node.upper {
		obj = f.node.lower
	}
	if obj == nil || obj.pkg == nil || obj.at != 0 {
		return dir, nil, nil
	}
	return dir, obj, nil
}

// shelve shows something else with the same content in the place of a package: a link to
// where it lies natively. It reports false if another package is there, or a changed one.
// Who is in the directory, or has it or anything in it open, stays there: the directory
// goes on without a name, and can only be read.
func (v *View) shelve(path string, tree hashing.Digest, entry index.Entry) (bool, error) {
	defer v.queue.flush()
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.writable(); err != nil {
		return false, fault.New("shelve", path, fault.Other, err)
	}
	dir, obj, err := v.packageIn(path)
	if dir != nil {
		defer v.tidy(dir)
	}
	if err == unix.ENOENT || err == nil && (obj == nil || obj.pkg.digest != tree) {
		return false, nil
	}
	if err == nil {
		err = v.gained.put(path, entry)
	}
	if err != nil {
		return false, fault.New("shelve", path, fault.Other, err)
	}
	_, name := splitPath(path)
	if n := dir.children[name]; n != nil {
		n.away = true
		n.detach(dir, name)
		v.tidy(n)
	}
	v.invalidate(dir, name)
	return true, nil
}

// reading is called before a client reads the list of a package's files. Clients do that when they
// are about to link or copy the package into an environment. Where it lies on the shelf by
// then, they get it from there: natively, and by hard links, which no link out of the mount can be.
func (s *Session) reading(pkg string, pid int, cancel <-chan struct{}) bool {
	dir, name := splitPath(pkg)
	shelf, ticket := s.e.o.Shelf, s.ticket
	if dir == rattlerDir {
		shelf, ticket = s.e.o.RattlerShelf, s.rattlerTicket
	} else if dir != "pkgs" {
		return false
	}
	// The shelf lies in the store, which is its owner's alone.
	if shelf == nil || ticket == nil || s.uid != s.e.owner {
		return false
	}
	s.awaitJob(pkg, cancel)
	tree, ok := s.view.packageAt(pkg)
	if !ok || !ticket.Holds(name, tree) && !s.holdsAlike(ticket, name, tree) {
		return false
	}
	entry := linkTo(shelf.Path(), name, &index.Entry{Owner: s.uid, Mtime: s.e.o.Now().UnixNano()})
	if !reaches(pid, entry.Link) {
		return false
	}
	ok, err := s.view.shelve(pkg, tree, entry)
	if err != nil {
		s.e.log.Warn("a client reads a package through the mount that it could read natively", "session", s.id, "package", pkg, "error", err)
	}
	return ok
}

// holdsAlike reports whether the shelf has the package but for the time of its record. conda writes that twice, the same both times: when
// it has unpacked the package, and when it takes note of it. By then the package may be published.
func (s *Session) holdsAlike(ticket ShelfTicket, name string, tree hashing.Digest) bool {
	held, ok := ticket.Held(name)
	if !ok {
		return false
	}
	src := s.view.lower.src
	ours, err := src.Tree(tree)
	if err != nil {
		return false
	}
	theirs, err := src.Tree(held)
	return err == nil && alikeButForRecordTime(ours, theirs)
}

func alikeButForRecordTime(a, b *index.Tree) bool {
	if a.Len() != b.Len() || a.At(0) != b.At(0) {
		return false
	}
	for path, e := range a.All() {
		i, ok := b.Find(path)
		if !ok {
			return false
		}
		o := b.At(i)
		if path == conda.CompletionMarker {
			o.Mtime = e.Mtime
		}
		if o != e {
			return false
		}
	}
	return true
}

// awaitJob waits, for a while, until a package that the client has completed is published.
func (s *Session) awaitJob(pkg string, cancel <-chan struct{}) {
	deadline := time.Now().Add(shelvePatience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	over := s.e.waiting().Done()
	for {
		s.mu.Lock()
		j := s.jobs[pkg]
		busy := j != nil && j.complete && j.running
		s.mu.Unlock()
		if !busy || time.Now().After(deadline) {
			return
		}
		select {
		case <-tick.C:
		case <-cancel:
			return
		case <-over:
			return
		}
	}
}

// reaches reports whether a client finds the same at a path as the daemon: one in a
// container may see the mount, and not the shelf.
func reaches(pid int, path string) bool {
	if pid <= 0 {
		return false
	}
	ours, err := os.Stat(path)
	if err != nil {
		return false
	}
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", pid, path))
	return err == nil && os.SameFile(ours, theirs)
}
