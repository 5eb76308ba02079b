package cow

import (
	"maps"

	"condafs/index"
)

// ruling is the outcome of one three-way merge: what a session did to
// something (ours), seen from where it started (base) and from where everybody
// is now (theirs).
type ruling uint8

const (
	// unchanged: ours is what the session started from, so it has no say.
	unchanged ruling = iota
	// publish: ours becomes the head's.
	publish
	// same: somebody else has published the same content.
	same
	// firstWins: somebody else was first; ours is dropped.
	firstWins
	// apart: another user was first with other content; ours goes beside it,
	// into this user's own space.
	apart
	// conflict: somebody else has published other content under the same name
	// and archive hash. One of the two is wrong: ours is put aside.
	conflict
	// remove: ours is a deletion that holds.
	remove
	// refused: ours is a deletion of something that has changed since.
	refused
)

// String names the ruling as it stands in reports.
func (r ruling) String() string {
	return [...]string{"unchanged", "publish", "same", "first wins", "apart", "conflict", "remove", "refused"}[r]
}

// rulePackage merges a package or an archive. nil stands for absent; an absent
// ours is a deletion.
func rulePackage(base, theirs, ours *index.Entry, uid uint32) ruling {
	switch {
	case ours == nil:
		return ruleDeletion(base, theirs)
	case sameContent(theirs, ours):
		if ours.Trust > theirs.Trust {
			return publish
		}
		return same
	case sameContent(base, ours):
		return unchanged // also when it was deleted since: that stays so
	case theirs == nil, sameContent(base, theirs):
		return publish
	case theirs.SHA256 != "" && theirs.SHA256 == ours.SHA256:
		return conflict
	case theirs.Owner != uid:
		return apart
	}
	return firstWins
}

// ruleFile merges a plain file or link. Of two changed ones the younger wins.
func ruleFile(base, theirs, ours *index.Entry) ruling {
	switch {
	case ours == nil:
		return ruleDeletion(base, theirs)
	case sameFile(theirs, ours):
		return same
	case sameFile(base, ours):
		return unchanged
	case theirs == nil, sameFile(base, theirs), ours.Mtime >= theirs.Mtime:
		return publish
	}
	return firstWins
}

// group is the members of a unit of several files, by path.
type group map[string]index.Entry

// ruleGroup merges a group of files that is replaced whole: of two changed ones
// the one whose youngest member is younger wins. An empty ours is a deletion.
func ruleGroup(base, theirs, ours group) ruling {
	switch {
	case len(ours) == 0 && (len(base) == 0 || len(theirs) == 0):
		return unchanged
	case len(ours) == 0 && sameGroup(base, theirs):
		return remove
	case len(ours) == 0:
		return refused
	case sameGroup(theirs, ours):
		return same
	case sameGroup(base, ours):
		return unchanged
	case len(theirs) == 0, sameGroup(base, theirs), ours.youngest() >= theirs.youngest():
		return publish
	}
	return firstWins
}

func ruleDeletion(base, theirs *index.Entry) ruling {
	switch {
	case base == nil, theirs == nil:
		return unchanged
	case sameContent(base, theirs):
		return remove
	}
	return refused
}

// sameContent reports whether a client would take both for the same package.
func sameContent(a, b *index.Entry) bool {
	if a == nil || b == nil || a.Kind != b.Kind {
		return false
	}
	switch a.Kind {
	case index.KindTree:
		return a.Content == b.Content
	case index.KindFile:
		return a.Digest == b.Digest
	case index.KindSymlink:
		return a.Link == b.Link
	}
	return true
}

// sameFile is sameContent of plain files, whose modes count.
func sameFile(a, b *index.Entry) bool {
	return sameContent(a, b) && (a.Mode == b.Mode || a.Kind == index.KindSymlink)
}

func sameGroup(a, b group) bool {
	return maps.EqualFunc(a, b, func(x, y index.Entry) bool { return sameFile(&x, &y) })
}

func (g group) youngest() int64 {
	var t int64
	for _, e := range g {
		t = max(t, e.Mtime)
	}
	return t
}
