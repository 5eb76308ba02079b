package cow

import (
	"encoding/hex"
	"slices"

	"condafs/conda"
	"condafs/hashing"
	"condafs/index"
)

// knownAs returns what an archive with these sums is known to hold: packages in the same place of the head, or of the session's snapshot,
// that were verified against an archive with that SHA-256. One in another user's space
// does not count, as the session could not have seen it. Usually there is one, or none.
//
// It is the daemon that has compared the two then, whoever brought them: that the
// record is right is a claim, that those files are in that archive is not.
func (s *Session) knownAs(root string, archive hashing.Sums) ([]index.Entry, error) {
	if archive.Has&hashing.SHA256 == 0 {
		return nil, nil
	}
	sha256 := hex.EncodeToString(archive.SHA256[:])
	var known []index.Entry
	err := s.eachKnown(root, func(e *index.Entry) {
		if e.Kind == index.KindTree && conda.Trust(e.Trust) == conda.TrustVerified && e.SHA256 == sha256 {
			known = append(known, *e)
		}
	})
	return known, err
}

// eachKnown calls f for what the head has at a path that the session's user may see,
// and for what the session started from.
func (s *Session) eachKnown(p string, f func(e *index.Entry)) error {
	head := s.e.store.PinHead()
	defer head.Release()
	for _, snap := range []*index.Snapshot{head, s.snap} {
		for _, space := range spaces(s.uid) {
			e, ok, err := snap.Get(space + "/" + p)
			if err != nil {
				return err
			}
			if ok {
				f(&e)
			}
		}
	}
	return nil
}

// knownArchive returns how far an archive with this content is trusted where the
// session could have it from. TrustOpaque says that it is not known.
func (s *Session) knownArchive(p string, content hashing.Digest) (conda.Trust, error) {
	trust := conda.TrustOpaque
	err := s.eachKnown(p, func(e *index.Entry) {
		if e.Kind == index.KindFile && e.Digest == content {
			trust = max(trust, conda.Trust(e.Trust))
		}
	})
	return trust, err
}

// recall lets the archive's evidence tell whether c is known to be what it holds.
func (s *Session) recall(c *content, archive *conda.ArchiveEvidence) error {
	if archive == nil {
		return nil
	}
	known, err := s.knownAs(c.path, archive.Sums)
	if err != nil {
		return err
	}
	if len(known) == 0 {
		s.e.counts.recall(false)
		return nil
	}
	archive.Unpacked = func() (is bool, err error) {
		defer func() { s.e.counts.recall(is) }()
		t, err := c.tree()
		if err != nil {
			return false, err
		}
		i := slices.IndexFunc(known, func(e index.Entry) bool { return e.Content == t.ContentDigest() })
		if i < 0 {
			return false, nil
		}
		c.known, err = s.e.store.Tree(known[i].Digest)
		return err == nil, err
	}
	return nil
}
