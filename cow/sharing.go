package cow

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"condafs/index"
)

// Sharing says whose verified packages all users are given.
//
// That a package is verified says that it is the content of an archive with the hash
// that the repodata or the record in its session names. Both were written by the
// session's user, who can make an archive and a record that fit. So what a user has
// verified proves nothing to another user, unless that one trusts him.
type Sharing string

const (
	// ShareTrusted gives to all what root, the daemon's user and those that
	// Options.Trusted names have published. What others publish is their own. It is
	// the default.
	ShareTrusted Sharing = "trusted"
	// ShareAll gives to all what anybody has published: for users who trust each other.
	ShareAll Sharing = "all"
	// ShareNone gives nobody what another has published.
	ShareNone Sharing = "none"
)

// Sharings are the values of Sharing, the default first.
var Sharings = []Sharing{ShareTrusted, ShareAll, ShareNone}

// shares reports whether what a user publishes as verified is for all users.
func (e *Engine) shares(uid uint32) bool {
	switch e.o.Sharing {
	case ShareAll:
		return true
	case ShareNone:
		return false
	}
	return uid == 0 || uid == e.owner || slices.Contains(e.o.Trusted, uid)
}

// gives reports whether what the session publishes may come to be seen by another
// user's.
func (s *Session) gives(to *Session) bool { return s.uid == to.uid || s.e.shares(s.uid) }

// SharedSpaceOf is the part of the index that a user's verified packages go to.
func (e *Engine) SharedSpaceOf(uid uint32) string {
	if e.shares(uid) {
		return SharedSpace
	}
	return PrivateSpace(uid)
}

// sharingNote is the name under which the store keeps whose packages are in SharedSpace.
const sharingNote = "sharing"

// SharesNothing reports whether the last engine over the store had ShareNone: what is
// done without one should keep to that.
func SharesNothing(store *index.Store) (bool, error) {
	note, err := store.Note(sharingNote)
	return note == string(ShareNone), err
}

// policy describes whose packages may be in SharedSpace.
func (e *Engine) policy() string {
	if e.o.Sharing != ShareTrusted {
		return string(e.o.Sharing)
	}
	trusted := append([]uint32{0, e.owner}, e.o.Trusted...)
	slices.Sort(trusted)
	return fmt.Sprintf("%s %v", ShareTrusted, slices.Compact(trusted))
}

// withdraw takes out of SharedSpace what is there by a more generous rule than today's,
// and gives it to its publisher alone. Sessions that have seen it go on with it.
func (e *Engine) withdraw() error {
	now := e.policy()
	last, err := e.store.Note(sharingNote)
	if err != nil || last == now {
		return err
	}
	if e.o.Sharing != ShareAll {
		moved := make(map[uint32]int)
		info := index.CommitInfo{UID: e.owner, Label: "sharing", What: []string{"verified packages are shared by another rule: " + now}}
		_, err := e.store.Update(e.working(), info, func(tx *index.Tx) error {
			clear(moved)
			return e.withdrawIn(tx, "", moved)
		})
		if err != nil {
			return err
		}
		for _, uid := range slices.Sorted(maps.Keys(moved)) {
			e.log.Info("no longer shared with other users", "uid", uid, "entries", moved[uid])
		}
	}
	return e.store.SetNote(sharingNote, now)
}

func (e *Engine) withdrawIn(tx *index.Tx, dir string, moved map[uint32]int) error {
	at := strings.TrimSuffix(SharedSpace+"/"+dir, "/")
	list, err := tx.List(at)
	if err != nil {
		return err
	}
	for _, x := range list {
		path := join(dir, x.Name)
		switch {
		case x.Kind == index.KindDir:
			err = e.withdrawIn(tx, path, moved)
		case !e.shares(x.Owner):
			err = e.withdrawEntry(tx, path, x.Entry)
			moved[x.Owner]++
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) withdrawEntry(tx *index.Tx, path string, x index.Entry) error {
	own := PrivateSpace(x.Owner) + "/" + path
	if _, there, err := tx.Get(own); err != nil {
		return err
	} else if !there {
		if err := tx.Put(own, x); err != nil {
			return err
		}
	}
	return tx.Delete(SharedSpace + "/" + path)
}
