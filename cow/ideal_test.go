//go:build condafs_faults

package cow

import (
	"maps"
	"slices"
	"strings"

	"condafs/conda"
)

// What follows is the ideal that histories are compared with: what the head and each
// session should hold, in plain maps. It says what the package's documentation says,
// and nothing of layers, manifests, locks or the order of writes.

// fact is an entry of the head as others see it. An id stands for a content.
type fact struct {
	id    string
	trust conda.Trust
	owner uint32
	sha   string // of the archive, as far as that is known
	mtime int64
}

func sameFact(a, b *fact) bool { return a != nil && b != nil && a.id == b.id }

// facts are by space and path.
type facts map[string]fact

// seen returns what a user sees at a path.
func (f facts) seen(uid uint32, path string) *fact {
	for _, space := range spaces(uid) {
		if e, ok := f[space+"/"+path]; ok {
			return &e
		}
	}
	return nil
}

// shown is what a view shows at a path: a package, an archive or a file.
type shown struct {
	id    string
	whole bool // a package has its record
	bad   bool // a package has a file that was tampered with
	mtime int64
}

// sealedFact is content that has passed its checks.
type sealedFact struct {
	fact
	base    *fact       // what the session started from
	settled bool        // it has been merged
	before  *sealedFact // what was published there earlier
}

func (it *sealedFact) published() *sealedFact {
	if it == nil || it.settled {
		return it
	}
	return it.before
}

// withdraw takes back what is not published.
func (s *idealSession) withdraw(path string) {
	if b := s.items[path].before; b != nil {
		s.items[path] = b
	} else {
		delete(s.items, path)
	}
}

// idealSession is one session. Paths are those of units' tops.
type idealSession struct {
	ideal *ideal

	uid       uint32
	pid       int
	explicit  bool
	ephemeral bool
	onFailure OnFailure
	killed    bool // or cut short by the daemon's death
	kept      bool
	exit      *int

	snap    facts
	view    map[string]shown
	overlay map[string]bool // what the client has written and is not sealed
	gone    map[string]bool // what the client has removed of what was below
	gained  map[string]bool // what was sealed
	items   map[string]*sealedFact
	removed map[string]bool // deletions that are published
	jobs    map[string]bool // packages that were complete once
	held    bool            // the group of repodata is not whole
	saw     glimpses        // of its archives that were checked earlier than the ideal has it
	cleaned bool            // the repodata's directory was removed

	client *client
}

// ideal is the whole: a head, what was put aside, and what is known of contents.
type ideal struct {
	head        facts
	quarantined []string // paths
	storeOwner  uint32
	shaOf       map[string]string // of an archive, by its id
	recordOf    map[string]string // the archive's hash in a package's record, by the package's id
	archiveOf   map[string]string // the id of its archive, by a package's id
}

const (
	listPath   = "pkgs/urls.txt"
	groupRoot  = "pkgs/cache/abcd1234.json"
	groupOther = "pkgs/cache/abcd1234.info.json"
)

var (
	notePaths  = []string{"pkgs/n1", "pkgs/n2"}
	groupPaths = []string{groupRoot, groupOther}
)

func (i *ideal) session(uid uint32, pid int) *idealSession {
	s := &idealSession{
		ideal: i, uid: uid, pid: pid, onFailure: KeepUnits, snap: maps.Clone(i.head),
		view: map[string]shown{}, overlay: map[string]bool{}, gone: map[string]bool{}, gained: map[string]bool{},
		items: map[string]*sealedFact{}, removed: map[string]bool{}, jobs: map[string]bool{},
	}
	for _, space := range slices.Backward(spaces(uid)) {
		for p, e := range i.head {
			if path, ok := strings.CutPrefix(p, space+"/"); ok {
				s.view[path] = shown{id: e.id, whole: true, mtime: e.mtime}
			}
		}
	}
	return s
}

func archivePath(pkg string) string { return pkg + ".conda" }

func (s *idealSession) set(path string, what shown) {
	s.view[path] = what
	s.overlay[path] = true
	delete(s.gone, path)
}

func (s *idealSession) unset(path string) {
	if _, ok := s.view[path]; !ok {
		return
	}
	delete(s.view, path)
	delete(s.overlay, path)
	if s.gained[path] || s.snap.seen(s.uid, path) != nil {
		s.gone[path] = true
	}
}

// dirty says that the session holds something that is not committed.
func (s *idealSession) dirty() bool {
	for _, it := range s.items {
		if !it.settled {
			return true
		}
	}
	return len(s.overlay)+len(s.gone) > 0
}

func (s *idealSession) deferred() bool { return s.ephemeral || s.onFailure == DiscardAll }

// base is what the session started from, or has published since.
func (s *idealSession) base(path string) *fact {
	switch it := s.items[path]; {
	case it != nil && !it.settled:
		return it.base
	case it != nil:
		return &it.fact
	case s.removed[path]:
		return nil
	}
	return s.snap.seen(s.uid, path)
}

type verdict uint8

const (
	incomplete verdict = iota
	corrupt
	sound
)

// judge says what the evidence in the view makes of a package.
func (s *idealSession) judge(pkg string) (verdict, conda.Trust) {
	p, ok := s.view[pkg]
	if !ok || !p.whole {
		return incomplete, 0
	}
	archive, ok := s.view[archivePath(pkg)]
	hash := s.ideal.shaOf[archive.id] // "": cut off
	switch {
	case p.bad:
		return corrupt, 0
	case !ok || hash == "":
		return sound, conda.TrustConsistent
	case hash != s.ideal.recordOf[p.id]:
		return corrupt, 0 // the record lies
	case s.ideal.archiveOf[p.id] != archive.id:
		return corrupt, 0
	}
	return sound, conda.TrustVerified
}

// take notes content that has passed its checks.
func (s *idealSession) take(path string, trust conda.Trust, sha string) {
	e := fact{id: s.view[path].id, trust: trust, owner: s.uid, sha: sha, mtime: s.view[path].mtime}
	base := s.base(path)
	if !s.overlay[path] && sameFact(base, &e) && base.trust >= trust {
		return
	}
	s.items[path] = &sealedFact{fact: e, base: base, before: s.items[path].published()}
	if s.overlay[path] {
		delete(s.overlay, path)
		s.gained[path] = true
	}
}

func (s *idealSession) takePackage(pkg string) verdict {
	v, trust := s.judge(pkg)
	if v != sound {
		return v
	}
	s.take(pkg, trust, s.ideal.recordOf[s.view[pkg].id])
	if trust == conda.TrustVerified {
		s.takeArchive(pkg)
	}
	return v
}

// takeArchive is about an archive by itself, or with a package that it proves.
func (s *idealSession) takeArchive(pkg string) verdict {
	a := s.view[archivePath(pkg)]
	sha := s.ideal.shaOf[a.id]
	if sha == "" {
		return corrupt
	}
	head, earlier := s.saw[pkg]
	if !earlier {
		head = s.ideal.head
	}
	s.take(archivePath(pkg), s.archiveTrust(pkg, head), sha)
	return sound
}

// archiveTrust says how far an archive is trusted by who checks it while the head is that.
func (s *idealSession) archiveTrust(pkg string, head facts) conda.Trust {
	a := s.view[archivePath(pkg)]
	if p, ok := s.view[pkg]; ok && p.whole && s.ideal.recordOf[p.id] == s.ideal.shaOf[a.id] {
		return conda.TrustVerified
	}
	for _, known := range []facts{head, s.snap} { // as verified, whoever did that
		for _, space := range spaces(s.uid) {
			if e := known[space+"/"+archivePath(pkg)]; e.id == a.id && e.trust == conda.TrustVerified {
				return e.trust
			}
		}
	}
	return conda.TrustConsistent
}

// glimpses are the heads of which the checks of archives have taken what is known, by package. An archive is checked first and
// published later: that it was verified then counts also if the head has another one by now, as it does for what the session started from.
type glimpses map[string]facts

// glimpsed returns all that may have come of it if the head was one of these in that moment, and no two of the same outcome.
func (s *idealSession) glimpsed(heads []facts) []glimpses {
	list := []glimpses{{}}
	for _, pkg := range packagePaths {
		if !s.overlay[archivePath(pkg)] {
			continue
		}
		byTrust := map[conda.Trust]facts{}
		for _, head := range heads {
			byTrust[s.archiveTrust(pkg, head)] = head
		}
		var longer []glimpses
		for _, g := range list {
			for _, head := range byTrust {
				c := maps.Clone(g)
				c[pkg] = head
				longer = append(longer, c)
			}
		}
		list = longer
	}
	return list
}

// completed is what happens when a client has done the last thing to a package.
func (s *idealSession) completed(pkg string) {
	if !s.deferred() && s.takePackage(pkg) == sound {
		s.publish()
	}
}

// publish merges what is not settled with the head.
func (s *idealSession) publish() {
	for _, path := range slices.Sorted(maps.Keys(s.items)) {
		it := s.items[path]
		if it.settled || slices.Contains(groupPaths, path) {
			continue
		}
		it.settled = true
		s.merge(path, it)
	}
	s.publishGroup(nil)
}

func (s *idealSession) merge(path string, it *sealedFact) {
	theirs := s.ideal.head.seen(s.uid, path)
	apart := false
	switch {
	case sameFact(theirs, &it.fact):
		if it.trust <= theirs.trust {
			return
		}
	case sameFact(it.base, &it.fact):
		return // no change of ours; if it was deleted since, that stays so
	case theirs == nil, sameFact(it.base, theirs):
	case slices.Contains(notePaths, path):
		if it.mtime < theirs.mtime {
			return // the younger one wins
		}
	case theirs.sha != "" && theirs.sha == it.sha:
		s.ideal.quarantined = append(s.ideal.quarantined, path)
		return
	case theirs.owner == s.uid:
		return // the first one wins
	default:
		apart = true
	}
	own, shared := PrivateSpace(s.uid)+"/"+path, SharedSpace+"/"+path
	there, taken := s.ideal.head[shared]
	if it.trust == conda.TrustVerified && !apart && (!taken || there.id == it.id || s.mayReplace(there)) {
		s.ideal.head[shared] = it.fact
		delete(s.ideal.head, own)
		return
	}
	s.ideal.head[own] = it.fact
}

func (s *idealSession) mayReplace(e fact) bool {
	return e.owner == s.uid || s.uid == 0 || s.uid == s.ideal.storeOwner
}

// publishGroup replaces the group of repodata whole, if there is anything to say of it.
func (s *idealSession) publishGroup(deleted []string) {
	if s.held {
		return
	}
	base, ours, theirs := facts{}, facts{}, facts{}
	changed := len(deleted) > 0
	for _, p := range groupPaths {
		if b := s.base(p); b != nil {
			base[p] = *b
			if !slices.Contains(deleted, p) {
				ours[p] = *b
			}
		}
		if e := s.ideal.head.seen(s.uid, p); e != nil {
			theirs[p] = *e
		}
	}
	for _, p := range groupPaths {
		if it := s.items[p]; it != nil && !it.settled {
			changed = true
			ours[p] = it.fact
			it.settled = true
		}
	}
	if !changed || sameFacts(ours, theirs) || sameFacts(ours, base) {
		return
	}
	if !sameFacts(base, theirs) && len(theirs) > 0 && (len(ours) == 0 || youngest(ours) < youngest(theirs)) {
		return // the newer one wins, and what has changed since is not deleted
	}
	for _, p := range groupPaths {
		delete(s.ideal.head, PrivateSpace(s.uid)+"/"+p)
		if e, ok := ours[p]; ok {
			s.ideal.head[PrivateSpace(s.uid)+"/"+p] = e
		}
	}
	for _, p := range deleted { // a deletion counts once
		s.removed[p] = true
		delete(s.items, p)
	}
}

func sameFacts(a, b facts) bool {
	return maps.EqualFunc(a, b, func(x, y fact) bool { return x.id == y.id })
}

func youngest(f facts) int64 {
	var t int64
	for _, e := range f {
		t = max(t, e.mtime)
	}
	return t
}

// commit goes through all that the session holds.
func (s *idealSession) commit(what scope, final bool) {
	if what == nothing {
		return
	}
	for p := range s.gone {
		if it := s.items[p]; it != nil && !it.settled {
			s.withdraw(p) // it was removed before anybody could see it
		}
	}
	for _, pkg := range packagePaths {
		it := s.items[pkg]
		archive := s.overlay[archivePath(pkg)]
		if s.overlay[pkg] || archive && it != nil && it.trust == conda.TrustConsistent {
			if s.takePackage(pkg) == corrupt && final && s.overlay[pkg] {
				s.ideal.quarantined = append(s.ideal.quarantined, pkg)
			}
		}
		if s.overlay[archivePath(pkg)] && s.takeArchive(pkg) == corrupt && final {
			s.ideal.quarantined = append(s.ideal.quarantined, archivePath(pkg))
		}
	}
	s.takeGroup(final)
	if what == everything {
		for _, p := range notePaths {
			if s.overlay[p] {
				s.take(p, conda.TrustOpaque, "")
			}
		}
	}
	deleted := []string{}
	for _, p := range groupPaths {
		if what == everything && s.gone[p] {
			deleted = append(deleted, p)
		}
	}
	s.publishGroup(deleted)
	s.publish()
	if s.overlay[listPath] {
		s.publishList()
	}
	if what == everything {
		for _, p := range slices.Sorted(maps.Keys(s.gone)) {
			if !slices.Contains(groupPaths, p) {
				s.publishDeletion(p)
			}
		}
	}
}

// takeGroup takes the changed members of the group, all or none.
func (s *idealSession) takeGroup(final bool) {
	var changed, broken []string
	deleted := false
	for _, p := range groupPaths {
		deleted = deleted || s.gone[p]
		if s.overlay[p] {
			changed = append(changed, p)
			if s.view[p].bad {
				broken = append(broken, p)
			}
		}
	}
	if len(changed) == 0 && !deleted {
		return
	}
	s.held = len(broken) > 0
	if s.held {
		if final {
			s.ideal.quarantined = append(s.ideal.quarantined, changed...)
		}
		return
	}
	for _, p := range changed {
		s.take(p, conda.TrustOpaque, "")
	}
}

// publishList unites ours with theirs: nothing that either of them lists is lost.
func (s *idealSession) publishList() {
	text := func(e *fact) []byte {
		if e == nil {
			return nil
		}
		return []byte(e.id)
	}
	theirs := s.ideal.head.seen(s.uid, listPath)
	union := string(conda.UnionURLs(text(s.base(listPath)), text(theirs), []byte(s.view[listPath].id)))
	if theirs == nil || union != theirs.id {
		s.ideal.head[PrivateSpace(s.uid)+"/"+listPath] = fact{id: union, owner: s.uid}
	}
}

// publishDeletion deletes what the session saw there, if it is that still.
func (s *idealSession) publishDeletion(path string) {
	base := s.base(path)
	done := false
	for _, space := range spaces(s.uid) {
		theirs, ok := s.ideal.head[space+"/"+path]
		if !ok {
			continue
		}
		was, had := s.snap[space+"/"+path]
		saw := sameFact(base, &theirs) || !s.removed[path] && had && was.id == theirs.id
		if saw && (space != SharedSpace || s.mayReplace(theirs)) {
			delete(s.ideal.head, space+"/"+path)
			done = true
		}
	}
	if done {
		s.removed[path] = true
		delete(s.items, path)
	}
}

// policy says how much is committed at the end.
func (s *idealSession) policy() scope {
	failed := s.killed
	if s.exit != nil {
		failed = *s.exit != 0
	}
	switch {
	case s.ephemeral, failed && s.explicit && s.onFailure == DiscardAll:
		return nothing
	case failed:
		return units
	}
	return everything
}
