package cow

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
)

// recover takes up the sessions of an earlier daemon, and removes what is left
// of those that had ended.
func (e *Engine) recover() error {
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
			if err := removeTree(e.store.SessionDir(d.Name())); err != nil {
				return fault.New("recover sessions", d.Name(), fault.Other, err)
			}
		}
	}
	return nil
}

// recoverSession takes up one session. If its processes live on, they find it
// again; else it ends now, in the background.
func (e *Engine) recoverSession(r index.SessionRecord) error {
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
	s, err := e.openSession(r.ID, o, r.Explicit, snap)
	if err != nil {
		return err
	}
	s.started, s.recorded, s.outcome = r.Started, true, st.Outcome
	s.killed = !st.Closed // what the daemon's own death cut short is not trusted
	if err := s.redo(); err != nil {
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
	for _, m := range st.Members {
		if e.o.Procs.Alive(m.ID) {
			if _, err := e.join(s, m); err != nil {
				return err
			}
		}
	}
	e.endIfQuiet(s)
	return nil
}

// redo takes up what was sealed. An item whose files are all there is published
// with the session; a lost one is left to the overlay, where it is incomplete.
func (s *Session) redo() error {
	names, err := os.ReadDir(s.sealedDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fault.New("recover session", s.id, fault.Other, err)
	}
	for _, n := range names {
		name := filepath.Join(s.sealedDir(), n.Name())
		m, err := readManifest(name)
		switch {
		case fault.Is(err, fault.Corrupt) || strings.HasSuffix(name, ".tmp"):
			s.e.log.Warn("what was being sealed when the daemon died is left in the overlay", "session", s.id, "manifest", n.Name(), "error", err)
			if err := removeManifest(name); err != nil {
				return err
			}
			continue
		case err != nil:
			return err
		}
		it, shown, err := m.item(name)
		if err != nil {
			return err
		}
		for _, f := range []form{it.public, shown} {
			s.keepForm(f)
		}
		if it.settled = strings.HasSuffix(name, doneSuffix); !it.settled {
			if err := s.redoItem(m, it, shown); err != nil {
				s.e.log.Warn("a package that was being sealed when the daemon died is lost", "session", s.id, "path", it.path, "error", err)
				if err := removeManifest(name); err != nil {
					return err
				}
				continue
			}
		}
		s.items[it.path] = it
	}
	return nil
}

// redoItem does the rest of what seal had begun. Doing it again changes nothing.
func (s *Session) redoItem(m *manifest, it *item, shown form) error {
	native := filepath.Join(s.upper(), filepath.FromSlash(it.path))
	for _, f := range m.Overlay {
		if err := s.redoFile(filepath.Join(native, filepath.FromSlash(string(f.Rel))), f.Digest); err != nil {
			return err
		}
	}
	if _, err := os.Lstat(native); errors.Is(err, fs.ErrNotExist) {
		return nil // the view had taken it in
	}
	if err := s.view.Dropped(it.path); err != nil {
		return err
	}
	ok, err := s.view.Gain(it.path, shown.entry)
	if err == nil && !ok {
		err = fault.New("recover", it.path, fault.Exists, nil)
	}
	return err
}

// redoFile makes sure that a blob is in the store, whole. It is there if the
// file was moved, though a machine that died may not have written all of it.
func (s *Session) redoFile(native string, d hashing.Digest) error {
	f, err := os.Open(native)
	inOverlay := err == nil
	if errors.Is(err, fs.ErrNotExist) {
		f, err = s.e.store.OpenBlob(d)
	}
	if err != nil {
		return err
	}
	sums, err := hashing.File(f, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if sums.Blake3 != d {
		return fault.New("recover", native, fault.Corrupt, errors.New("its content is not what was checked"))
	}
	if !inOverlay {
		return nil
	}
	return s.adopt(native, d)
}
