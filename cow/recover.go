package cow

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"condafs/beneath"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/failpoint"

	"golang.org/x/sys/unix"
)

// recover takes up the sessions of an earlier daemon, and removes what is left
// of those that had ended.
func (e *Engine) recover() error {
	if err := e.dropEmptyQuarantine(); err != nil { // before sessions end, and put more there
		return err
	}
	records, err := e.store.Sessions()
	if err != nil {
		return err
	}
	known := make(map[string]bool)
	for _, r := range records {
		known[r.ID] = true
		if err := e.recoverSession(r); err != nil {
			return err
		}
	}
	parent := filepath.Dir(e.store.SessionDir("x"))
	dirs, err := os.ReadDir(parent)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New("recover sessions", parent, fault.Other, err)
	}
	for _, d := range dirs {
		if !known[d.Name()] {
			if err := beneath.RemoveTree(e.store.SessionDir(d.Name())); err != nil {
				return fault.New("recover sessions", d.Name(), fault.Other, err)
			}
			failpoint.Hit(failpoint.RecoverSwept, e.store.Dir())
		}
	}
	failpoint.Hit(failpoint.RecoverDone, e.store.Dir())
	return nil
}

// recoverSession takes up one session. If its processes live on, they find it
// again; else it ends now, in the background.
func (e *Engine) recoverSession(r index.SessionRecord) error {
	failpoint.Hit(failpoint.RecoverSession, e.store.Dir())
	var st sessionState
	if err := json.Unmarshal([]byte(r.State), &st); err != nil {
		// Written by another version, or damaged: then no process is known, and
		// only what can be checked is committed.
		e.log.Warn("a session's record cannot be read", "session", r.ID, "error", err)
	}
	snap, err := e.store.Pin(r.Seq)
	if err != nil {
		e.log.Warn("a session's snapshot is gone, the head takes its place", "session", r.ID, "error", err)
		snap = e.store.PinHead()
	}
	o := StartOptions{
		PID: r.PID, UID: r.UID, GID: r.GID, Label: r.Label, Command: r.Command,
		Ephemeral: r.Ephemeral, OnFailure: OnFailure(r.OnFailure),
	}
	e.account(r.UID).resume()
	s, err := e.openSession(r.ID, o, r.Explicit, snap)
	if err != nil {
		return err
	}
	s.started, s.recorded, s.outcome = r.Started, true, st.Outcome
	s.killed = st.Killed || !st.Closed // what the daemon's own death cut short is not trusted
	if err := s.recoverLanes(); err != nil {
		return errors.Join(err, s.release())
	}
	e.mu.Lock()
	e.sessions[s.id] = s
	if st.Kept {
		s.state = stateKept
	}
	e.mu.Unlock()
	if st.Kept {
		return nil
	}
	alive := false
	for _, m := range st.Members {
		if e.o.Procs.Alive(m.ID) {
			if _, err := e.join(s, m); err != nil {
				return err
			}
			alive = true
		}
	}
	if !alive {
		e.endIfQuiet(s)
		return nil
	}
	// It may be this daemon that dies next time.
	if err := s.record(false); err != nil {
		return err
	}
	e.background(func() { e.catchUp(s) })
	return nil
}

// catchUp commits what a session had completed when the daemon died: nothing
// will happen to it that would trigger that.
func (e *Engine) catchUp(s *Session) {
	if s.deferred() {
		return
	}
	s.work.Lock()
	defer s.work.Unlock()
	r, err := s.commitAll(e.working(), units, false)
	if err != nil {
		e.log.Warn("what a session had completed could not be committed yet", "session", s.id, "error", err)
	}
	e.logReport(s, r)
}

// readManifests finds what an earlier daemon has sealed, for redo. It must be
// known before the view opens, which shows it.
func (s *Session) readManifests() ([]*sealing, error) {
	names, err := os.ReadDir(s.sealedDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New("recover session", s.id, fault.Other, err)
	}
	var list []*sealing
	for _, n := range names {
		if strings.HasSuffix(n.Name(), tmpSuffix) { // nothing relies on it yet
			if err := removeManifest(filepath.Join(s.sealedDir(), n.Name())); err != nil {
				return nil, err
			}
			continue
		}
		if strings.HasSuffix(n.Name(), goneSuffix) {
			path, err := readDeletion(filepath.Join(s.sealedDir(), n.Name()))
			if err != nil {
				return nil, err
			}
			s.removed[path] = true
			continue
		}
		r, err := readSealing(filepath.Join(s.sealedDir(), n.Name()))
		switch {
		case fault.Is(err, fault.Corrupt):
			s.e.log.Warn("what was about to be sealed when the daemon died is left in the overlay", "session", s.id, "error", err)
			if err := removeManifest(filepath.Join(s.sealedDir(), n.Name())); err != nil {
				return nil, err
			}
			continue
		case err != nil:
			return nil, err
		}
		s.keep(r.item.public)
		s.show(r.shown)
		if r.item.settled {
			r.item.public.tree = nil
		}
		if !strings.HasSuffix(n.Name(), keptSuffix) {
			list = append(list, r)
		}
	}
	return list, nil
}

// redo takes up what was sealed. An item whose files are all there is published
// with the session; one that has lost some, in the death of the machine, is left
// to the overlay, where it is incomplete. What the client has removed or changed since it was sealed is
// not published: it may have begun anew, and was cut short.
func (s *Session) redo(sealed []*sealing) {
	slices.SortStableFunc(sealed, func(a, b *sealing) int { return cmp.Compare(a.age(), b.age()) })
	for _, r := range sealed {
		if !r.item.settled {
			if err := s.redoItem(r); err != nil {
				s.e.log.Warn("what was sealed when the daemon died is not published", "session", s.id, "path", r.item.path, "error", err)
				if err := giveUpManifest(r.item); err != nil {
					s.e.log.Warn("its manifest stays", "session", s.id, "error", err)
				}
				continue
			}
		}
		s.mu.Lock()
		r.item.before = s.items[r.item.path].published()
		s.items[r.item.path] = r.item
		s.mu.Unlock()
	}
}

// Ages of the manifests of one path: the session's item is that with the greatest.
const (
	published = iota
	waiting
	moving
)

func (r *sealing) age() int {
	switch {
	case r.item.settled:
		return published
	case r.sealed:
		return waiting
	}
	return moving
}

// redoItem does the rest of what seal had begun. Doing it again changes nothing.
func (s *Session) redoItem(r *sealing) error {
	path := r.item.path
	if r.sealed {
		if shown, err := s.view.shows(path, &r.shown.entry); err != nil || shown {
			return err
		}
		return fault.New("recover", path, fault.Busy, errors.New("its client has changed it since"))
	}
	// All is looked at before anything moves: a client may have changed a file after the
	// manifest was written, and then the others must stay where they are.
	var left []manifestFile
	for _, f := range r.overlay {
		inOverlay, err := s.checkSealed(join(path, string(f.Rel)), f.Digest)
		if err != nil {
			return err
		}
		if inOverlay {
			left = append(left, f)
		}
	}
	for _, f := range left {
		if err := s.redoFile(join(path, string(f.Rel)), f.Digest); err != nil {
			return err
		}
		failpoint.Hit(failpoint.RecoverFile, s.e.store.Dir())
	}
	err := s.view.Seal(path, s.view.Generation(path), r.shown.entry, resealing{r.item})
	failpoint.Hit(failpoint.RecoverResealed, s.e.store.Dir())
	return err
}

// resealing seals what has a manifest, and whose files have moved.
type resealing struct{ item *item }

func (resealing) begin() error                   { return nil }
func (resealing) move(string, int, string) error { return nil }
func (r resealing) done() error                  { return sealManifest(r.item) }

// checkSealed makes sure that a file's content is what was checked, in the overlay or in
// the store. It is there if the file was moved, though a machine that died may not have
// written all of it. The client has had the overlay since the manifest was written: what
// was a file may be a link now.
func (s *Session) checkSealed(path string, d hashing.Digest) (inOverlay bool, err error) {
	dirfd, name, err := beneath.Parent(s.view.rootfd, path)
	var f *os.File
	if err == nil {
		defer unix.Close(dirfd) //nolint:errcheck // of O_PATH, it has nothing to tell
		f, err = beneath.OpenFile(dirfd, name)
	}
	inOverlay = err == nil
	if errors.Is(err, fs.ErrNotExist) {
		f, err = s.e.store.OpenBlob(d)
	}
	if err != nil {
		return false, err
	}
	sums, err := hashing.File(f, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	if sums.Blake3 != d {
		return false, fault.New("recover", path, fault.Corrupt, errors.New("its content is not what was checked"))
	}
	return inOverlay, nil
}

// redoFile moves a file of the overlay, which has been checked, into the store.
func (s *Session) redoFile(path string, d hashing.Digest) error {
	dirfd, name, err := beneath.Parent(s.view.rootfd, path)
	if err != nil {
		return err
	}
	defer unix.Close(dirfd) //nolint:errcheck // of O_PATH, it has nothing to tell
	return s.adopt(dirfd, name, d)
}
