package cow

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/failpoint"
)

// op is one change of the head. apply merges it into a transaction, and may be
// called again with another one. settle is called once, after the transaction
// was committed.
type op interface {
	apply(tx *index.Tx) error
	settle(s *Session, r *Report) error
}

// publishItems publishes the items that are not settled yet, deletions from
// groups of files, and more. Several
// jobs of a session that want to publish at the same time do it in one
// transaction: who comes second finds nothing left to do.
func (s *Session) publishItems(ctx context.Context, deletions map[string]*groupChange, more ...op) (Report, error) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	report, err := s.publish(ctx, deletions, more)
	if !fault.Is(err, fault.Corrupt) {
		return report, err
	}
	// A machine that died has taken some of the content with it, or the disk has.
	lost, derr := s.dropDamaged(deletions)
	if derr != nil || len(lost) == 0 {
		return report, errors.Join(err, derr)
	}
	report, err = s.publish(ctx, deletions, more)
	report.Dropped = append(report.Dropped, lost...)
	return report, err
}

// dropDamaged gives up the items whose content the store does not have any more, and
// whole groups of files of which one is lost, be it one that the session hasn't changed.
func (s *Session) dropDamaged(deletions map[string]*groupChange) ([]Note, error) {
	var lost []Note
	s.mu.Lock()
	defer s.mu.Unlock()
	units := make(map[string]conda.Unit) // the groups, by their keys
	for key, g := range deletions {
		units[key] = g.unit
	}
	for _, it := range s.items {
		if !it.settled && it.unit.Kind == conda.Repodata {
			units[it.unit.Key] = it.unit
		}
	}
	broken := make(map[string]error)
	for key, u := range units {
		var deleted []string
		if g := deletions[key]; g != nil {
			deleted = g.deleted
		}
		err := s.checkGroup(u, deleted)
		if err != nil && !fault.Is(err, fault.Corrupt) {
			return nil, err
		}
		broken[key] = err
		if err != nil && deleted != nil {
			delete(deletions, key)
			lost = append(lost, Note{u.Root, "nothing of it is deleted: " + err.Error()})
		}
	}
	for p, it := range s.items {
		if it.settled {
			continue
		}
		err := broken[it.unit.Key]
		if err == nil {
			err = s.checkContent(it.public)
		}
		if err == nil {
			continue
		}
		if !fault.Is(err, fault.Corrupt) {
			return lost, err
		}
		s.withdraw(it)
		if it.ownManifest() {
			if err := giveUpManifest(it); err != nil {
				return lost, err
			}
		}
		lost = append(lost, Note{p, err.Error()})
	}
	return lost, nil
}

// checkGroup reads what a group of files is to consist of. s.mu is held.
func (s *Session) checkGroup(u conda.Unit, deleted []string) error {
	for _, p := range u.Members() {
		if slices.Contains(deleted, p) {
			continue
		}
		f := form{}
		if it := s.items[p]; it != nil {
			f = it.public
		} else if b, err := entryIn(s.snap, s.uid, p); err != nil {
			return err
		} else if b == nil || s.removed[p] {
			continue
		} else {
			f.entry = *b
		}
		if err := s.checkContent(f); err != nil {
			return err
		}
	}
	return nil
}

// checkContent reads all blobs of a form.
func (s *Session) checkContent(f form) error {
	if f.tree == nil {
		if f.entry.Kind != index.KindFile {
			return nil
		}
		return s.checkBlob(f.entry.Digest)
	}
	for _, e := range f.tree.All() {
		if e.Kind != index.KindFile {
			continue
		}
		if err := s.checkBlob(e.Digest); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) checkBlob(d hashing.Digest) error {
	f, err := s.e.store.OpenBlob(d)
	if err != nil {
		return err
	}
	sums, err := hashing.File(f, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if sums.Blake3 != d {
		return fault.New("read blob", d.String(), fault.Corrupt, errors.New("it is damaged"))
	}
	return nil
}

// publish is one try of publishItems.
func (s *Session) publish(ctx context.Context, deletions map[string]*groupChange, more []op) (Report, error) {
	ops := append(s.itemOps(deletions), more...)
	report := Report{Seq: s.e.store.Head()}
	if len(ops) == 0 {
		return report, nil
	}
	if err := failpoint.Err(failpoint.PublishBegin, s.e.store.Dir()); err != nil {
		return report, err
	}
	info := index.CommitInfo{Session: s.id, Label: s.start.Label, Command: s.start.Command, UID: s.uid, PID: s.start.PID}
	seq, err := s.e.store.Update(ctx, info, func(tx *index.Tx) error {
		for _, o := range ops {
			if err := o.apply(tx); err != nil {
				return err
			}
		}
		failpoint.Hit(failpoint.PublishMerged, s.e.store.Dir())
		return nil
	})
	if err != nil {
		return report, err
	}
	report.Seq = seq
	if err := failpoint.Err(failpoint.PublishDone, s.e.store.Dir()); err != nil {
		return report, err
	}
	var errs []error
	for _, o := range ops {
		errs = append(errs, o.settle(s, &report))
	}
	failpoint.Hit(failpoint.SettleDone, s.e.store.Dir())
	if len(report.Committed) > 0 {
		s.e.head.follow()
		s.e.offer(&report)
	}
	return report, errors.Join(errs...)
}

// itemOps makes the operations for all items that are not settled, and for
// groups of files of which some were deleted.
func (s *Session) itemOps(deletions map[string]*groupChange) []op {
	s.mu.Lock()
	defer s.mu.Unlock()
	units := make(map[string]*itemOp)
	for _, g := range deletions {
		if s.held[g.unit.Key] {
			continue
		}
		units[g.unit.Key] = &itemOp{s: s, unit: g.unit}
	}
	for _, it := range s.items {
		if it.settled || s.held[it.unit.Key] {
			continue
		}
		o := units[it.unit.Key]
		if o == nil {
			o = &itemOp{s: s, unit: it.unit}
			units[it.unit.Key] = o
		}
		o.items = append(o.items, it)
	}
	var ops []op
	for _, key := range slices.Sorted(maps.Keys(units)) {
		o := units[key]
		slices.SortFunc(o.items, func(a, b *item) int { return cmp.Compare(a.path, b.path) })
		if o.unit.Kind != conda.Repodata {
			ops = append(ops, o)
			continue
		}
		g := &groupOp{s: s, unit: o.unit, items: o.items}
		if d := deletions[key]; d != nil {
			g.deleted = d.deleted
		}
		ops = append(ops, g)
	}
	return ops
}

// itemOp publishes a unit whose items stand for themselves: a package with its
// metadata, an archive, a plain file.
type itemOp struct {
	s       *Session
	unit    conda.Unit
	items   []*item // the unit's root, if it is among them, comes first
	rulings []ruling
	blocked string // why nothing of it can be there
}

func (o *itemOp) apply(tx *index.Tx) error {
	o.rulings, o.blocked = make([]ruling, len(o.items)), ""
	why, err := blockedBy(tx, o.s.uid, o.unit.Root)
	if err != nil {
		return err
	}
	if why != "" {
		o.blocked = why
		return nil
	}
	for i, it := range o.items {
		theirs, err := entryIn(tx, o.s.uid, it.path)
		if err != nil {
			return err
		}
		ours := it.public.entry
		switch {
		case it.path != o.unit.Root && len(o.items) > 1 && o.rulings[0] != publish && o.rulings[0] != apart:
			o.rulings[i] = o.rulings[0] // metadata goes with its package
		case o.unit.Kind == conda.Opaque || it.path != o.unit.Root:
			o.rulings[i] = ruleFile(it.base, theirs, &ours)
		default:
			o.rulings[i] = rulePackage(it.base, theirs, &ours, o.s.uid)
		}
		if o.rulings[i] == publish || o.rulings[i] == apart {
			if err := o.place(tx, it, o.rulings[i]); err != nil {
				return err
			}
			tx.Note(fmt.Sprintf("+ %s (%s)", it.path, conda.Trust(ours.Trust)))
		}
	}
	return nil
}

// place puts an item where it belongs: verified packages and archives of a user whose
// are shared into the shared space, unless another user has something else there, the
// rest into the user's own.
func (o *itemOp) place(tx *index.Tx, it *item, r ruling) error {
	if it.public.tree != nil {
		if _, err := tx.PutTree(it.public.tree); err != nil {
			return err
		}
	}
	own, shared := PrivateSpace(o.s.uid)+"/"+it.path, SharedSpace+"/"+it.path
	if conda.Trust(it.public.entry.Trust) == conda.TrustVerified && r != apart && o.s.e.shares(o.s.uid) {
		there, ok, err := tx.Get(shared)
		if err != nil {
			return err
		}
		if !ok || sameContent(&there, &it.public.entry) || o.s.mayReplace(&there) {
			if err := tx.Put(shared, it.public.entry); err != nil {
				return err
			}
			return deleteIfThere(tx, own)
		}
	}
	return tx.Put(own, it.public.entry)
}

// mayReplace reports whether the session's user may change a shared entry.
func (s *Session) mayReplace(e *index.Entry) bool {
	return e.Owner == s.uid || s.uid == 0 || s.uid == s.e.owner
}

func deleteIfThere(tx *index.Tx, path string) error {
	_, ok, err := tx.Get(path)
	if err != nil || !ok {
		return err
	}
	return tx.Delete(path)
}

func (o *itemOp) settle(s *Session, r *Report) error {
	var errs []error
	for i, it := range o.items {
		ours := it.public.entry
		switch ruled := o.rulings[i]; {
		case o.blocked != "":
			r.Dropped = append(r.Dropped, Note{it.path, o.blocked})
		case ruled == publish || ruled == apart:
			r.Committed = append(r.Committed, UnitReport{Path: it.path, Kind: it.unit.Kind, Trust: conda.Trust(ours.Trust)})
			s.e.counts.publish(it)
		case ruled == conflict:
			const why = "the head has other content under the same name and archive hash"
			if err := s.quarantineItem(it, why); err != nil {
				errs = append(errs, err)
				continue // not settled: there is a next time
			}
			r.Quarantined = append(r.Quarantined, Note{it.path, why})
		case ruled == firstWins:
			r.Dropped = append(r.Dropped, Note{it.path, "somebody else committed another one first"})
		}
		errs = append(errs, s.settled(it))
	}
	return errors.Join(errs...)
}

// settled notes that the item has been merged.
func (s *Session) settled(it *item) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	it.settled = true
	it.public.tree = nil // the head has it, or has no need of it
	return settleManifest(it)
}

// blockedBy says what in the head keeps a path from being there: a parent that
// is no directory, or a directory with something in it in its place.
func blockedBy(tx *index.Tx, uid uint32, p string) (string, error) {
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		for _, space := range spaces(uid) {
			e, ok, err := tx.Get(space + "/" + dir)
			if err != nil {
				return "", err
			}
			if ok && e.Kind != index.KindDir {
				return fmt.Sprintf("%s is a %v now", dir, e.Kind), nil
			}
		}
	}
	for _, space := range spaces(uid) {
		e, ok, err := tx.Get(space + "/" + p)
		if err != nil {
			return "", err
		}
		if ok && e.Kind == index.KindDir {
			list, err := tx.List(space + "/" + p)
			if err != nil {
				return "", err
			}
			if len(list) > 0 {
				return "it is a directory now", nil
			}
		}
	}
	return "", nil
}

// groupOp publishes a group of files that is replaced whole. What of it the
// session has not changed goes along as it was in its snapshot.
type groupOp struct {
	s       *Session
	unit    conda.Unit
	items   []*item  // what has changed
	deleted []string // what the session has removed
	ruling  ruling
	base    group
	ours    group
}

func (o *groupOp) apply(tx *index.Tx) error {
	o.base, o.ours = group{}, group{}
	theirs := group{}
	for _, p := range o.unit.Members() {
		b, err := o.s.baseOf(p)
		if err != nil {
			return err
		}
		if b != nil && !slices.Contains(o.deleted, p) {
			o.ours[p] = *b
		}
		if b != nil {
			o.base[p] = *b
		}
		t, err := entryIn(tx, o.s.uid, p)
		if err != nil {
			return err
		}
		if t != nil && t.Kind != index.KindDir {
			theirs[p] = *t
		}
	}
	for _, it := range o.items {
		o.ours[it.path] = it.public.entry
	}
	o.ruling = ruleGroup(o.base, theirs, o.ours)
	if o.ruling != publish && o.ruling != remove {
		return nil
	}
	if why, err := blockedBy(tx, o.s.uid, o.unit.Root); err != nil || why != "" {
		o.ruling = firstWins
		return err
	}
	own := PrivateSpace(o.s.uid) + "/"
	for _, p := range o.unit.Members() {
		e, mine := o.ours[p]
		switch {
		case mine:
			if err := tx.Put(own+p, e); err != nil {
				return err
			}
		default:
			if err := deleteIfThere(tx, own+p); err != nil {
				return err
			}
		}
	}
	if o.ruling == remove {
		tx.Note("- " + o.unit.Root)
	} else {
		tx.Note("+ " + o.unit.Root)
	}
	return nil
}

func (o *groupOp) settle(s *Session, r *Report) error {
	switch o.ruling {
	case publish, remove:
		r.Committed = append(r.Committed, UnitReport{Path: o.unit.Root, Kind: o.unit.Kind, Deleted: o.ruling == remove})
	case firstWins:
		r.Dropped = append(r.Dropped, Note{o.unit.Root, "somebody else committed a newer one"})
	case refused:
		r.Dropped = append(r.Dropped, Note{o.unit.Root, "not deleted: it has changed since"})
	}
	var errs []error
	for _, it := range o.items {
		errs = append(errs, s.settled(it))
	}
	if o.ruling == publish || o.ruling == remove {
		for _, p := range o.deleted {
			errs = append(errs, s.settleDeletion(p))
		}
	}
	return errors.Join(errs...)
}

// listOp publishes a list of addresses.
type listOp struct {
	s     *Session
	path  string
	entry index.Entry // mode and time of ours
	ours  []byte
	same  bool
}

func (o *listOp) apply(tx *index.Tx) error {
	o.same = false
	if why, err := blockedBy(tx, o.s.uid, o.path); err != nil || why != "" {
		o.same = true
		return err
	}
	b, err := o.s.baseOf(o.path)
	if err != nil {
		return err
	}
	base, err := o.s.listAt(b)
	if err != nil {
		return err
	}
	t, err := entryIn(tx, o.s.uid, o.path)
	if err != nil {
		return err
	}
	theirs, err := o.s.listAt(t)
	if err != nil {
		return err
	}
	union := conda.UnionURLs(base, theirs, o.ours)
	if t != nil && bytes.Equal(union, theirs) {
		o.same = true
		return nil
	}
	sums, err := o.s.e.store.PutBlob(o.s.hold, bytes.NewReader(union), 0)
	if err != nil {
		return err
	}
	e := o.entry
	e.Digest, e.Size = sums.Blake3, sums.Size
	tx.Note("+ " + o.path)
	return tx.Put(PrivateSpace(o.s.uid)+"/"+o.path, e)
}

func (o *listOp) settle(_ *Session, r *Report) error {
	if !o.same {
		r.Committed = append(r.Committed, UnitReport{Path: o.path, Kind: conda.URLs})
	}
	return nil
}

// listAt reads a list that is in the store. One that is lost is taken for an empty one:
// there is nothing left of it to unite with.
func (s *Session) listAt(e *index.Entry) ([]byte, error) {
	if e == nil || e.Kind != index.KindFile || e.Size > maxText {
		return nil, nil
	}
	b, err := readAll(func() (*os.File, error) { return s.e.store.OpenBlob(e.Digest) })
	if fault.Is(err, fault.Corrupt) {
		return nil, nil
	}
	return b, err
}

// settleDeletion notes that a deletion has been published, also for the next daemon:
// what the client makes there later starts from nothing.
func (s *Session) settleDeletion(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed[path] = true
	it := s.items[path]
	delete(s.items, path)
	var err error
	if !s.view.retired.Load() { // else nothing more will be made
		err = s.writeDeletion(path)
	}
	if it != nil && it.manifest != "" {
		err = errors.Join(err, removeManifest(it.manifest))
	}
	return err
}

// dirOp publishes a directory that merely holds units.
type dirOp struct {
	s    *Session
	path string
	mode uint32
	made bool
}

func (o *dirOp) apply(tx *index.Tx) error {
	o.made = false
	there, err := entryIn(tx, o.s.uid, o.path)
	if err != nil || there != nil {
		return err
	}
	if why, err := blockedBy(tx, o.s.uid, o.path); err != nil || why != "" {
		return err
	}
	o.made = true
	return tx.Put(PrivateSpace(o.s.uid)+"/"+o.path, index.Entry{Kind: index.KindDir, Mode: o.mode, Owner: o.s.uid, Mtime: o.s.e.o.Now().UnixNano()})
}

func (o *dirOp) settle(_ *Session, r *Report) error {
	if o.made {
		r.Committed = append(r.Committed, UnitReport{Path: o.path, Kind: conda.Dir})
	}
	return nil
}

// deleteOp publishes a deletion, in each space by itself: what shows up when
// the user's own entry is gone was deleted too, if the session could see it.
type deleteOp struct {
	s       *Session
	path    string
	dir     bool // a directory of units: it goes if it is empty
	kind    conda.UnitKind
	removed bool
	why     string // it was not removed
}

func (o *deleteOp) apply(tx *index.Tx) error {
	o.removed, o.why = false, ""
	for _, space := range spaces(o.s.uid) {
		if err := o.applyIn(tx, space); err != nil {
			return err
		}
	}
	if o.removed {
		tx.Note("- " + o.path)
	}
	return nil
}

func (o *deleteOp) applyIn(tx *index.Tx, space string) error {
	at := space + "/" + o.path
	theirs, ok, err := tx.Get(at)
	if err != nil || !ok {
		return err
	}
	if o.dir || theirs.Kind == index.KindDir {
		list, err := tx.List(at)
		if err != nil || len(list) > 0 || theirs.Kind != index.KindDir || space == SharedSpace {
			return err
		}
		o.removed = true
		return tx.Delete(at)
	}
	seen, err := o.s.saw(space, o.path, &theirs)
	if err != nil {
		return err
	}
	switch {
	case !seen:
		o.why = "not deleted: it has changed since"
	case space == SharedSpace && !o.s.mayReplace(&theirs):
		o.why = "not deleted: it is another user's"
	default:
		o.removed = true
		return tx.Delete(at)
	}
	return nil
}

// saw reports whether the session's view showed that content at a path of a
// space, so that its deletion was about that.
func (s *Session) saw(space, path string, e *index.Entry) (bool, error) {
	base, err := s.baseOf(path)
	if err != nil {
		return false, err
	}
	if sameContent(base, e) {
		return true, nil
	}
	s.mu.Lock()
	removed := s.removed[path]
	s.mu.Unlock()
	if removed {
		return false, nil
	}
	was, ok, err := s.snap.Get(space + "/" + path)
	return ok && sameContent(&was, e), err
}

func (o *deleteOp) settle(s *Session, r *Report) error {
	switch {
	case o.removed:
		if err := s.settleDeletion(o.path); err != nil {
			return err
		}
		r.Committed = append(r.Committed, UnitReport{Path: o.path, Kind: o.kind, Deleted: true})
	case o.why != "":
		r.Dropped = append(r.Dropped, Note{o.path, o.why})
	}
	return nil
}
