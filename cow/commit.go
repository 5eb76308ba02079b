package cow

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"condafs/conda"
	"condafs/fault"
	"condafs/index"

	"golang.org/x/sys/unix"
)

// commitAll goes through all changes of the session and publishes them in one
// transaction. In the final commit of a session, what fails its checks goes into
// quarantine, and the caller drops what is left; else it stays in the overlay and
// is reported as pending. An error means that something could not be committed
// now and perhaps can another time. s.work is held alone.
func (s *Session) commitAll(ctx context.Context, what scope, final bool) (Report, error) {
	if what == nothing {
		return Report{Seq: s.e.store.Head()}, nil
	}
	if err := s.resume(""); err != nil {
		return Report{Seq: s.e.store.Head()}, err
	}
	// In the end, all that is there counts. Else what could not be taken over stays for another time.
	for _, err := range s.takeLanes(final) {
		if final && !hopeless(err) {
			return Report{Seq: s.e.store.Head()}, err
		}
	}
	c := &committing{s: s, what: what, final: final}
	changes, err := s.view.Changes()
	switch {
	case errors.Is(err, errTooMuch) && final:
		// It will not become less. What was sealed before is published all the same.
		c.report.Dropped = append(c.report.Dropped, Note{"", err.Error()})
	case err != nil:
		return Report{Seq: s.e.store.Head()}, err
	}
	c.sort(changes)
	if err := c.prepare(ctx); err != nil {
		return c.report, err
	}
	published, err := s.publishItems(ctx, c.deletions(), c.ops...)
	c.report.merge(published)
	c.report.sort()
	return c.report, err
}

func (r *Report) sort() {
	slices.SortFunc(r.Committed, func(a, b UnitReport) int { return strings.Compare(a.Path, b.Path) })
	for _, notes := range [][]Note{r.Dropped, r.Pending, r.Quarantined} {
		slices.SortFunc(notes, func(a, b Note) int { return strings.Compare(a.Path, b.Path) })
	}
}

func (r *Report) merge(o Report) {
	r.Seq = o.Seq
	r.Committed = append(r.Committed, o.Committed...)
	r.Dropped = append(r.Dropped, o.Dropped...)
	r.Pending = append(r.Pending, o.Pending...)
	r.Quarantined = append(r.Quarantined, o.Quarantined...)
}

// committing is one run of commitAll.
type committing struct {
	s     *Session
	what  scope
	final bool

	packages map[string]*packageChange // by the package's directory
	groups   map[string]*groupChange   // by the unit's key
	files    []string                  // plain files and links
	lists    []string
	ops      []op

	mu     sync.Mutex // guards what follows: packages are checked in parallel
	report Report
	aside  []Note  // what is to be put into quarantine
	failed []error // what can be tried again
}

// packageChange is what the overlay holds of a package and of its archives.
type packageChange struct {
	dir      bool
	archives []conda.Unit
}

// groupChange is what the overlay holds of a group of files.
type groupChange struct {
	unit    conda.Unit
	changed []string
	deleted []string
}

// sort tells apart what the changes are about.
func (c *committing) sort(changes []Change) {
	c.packages = make(map[string]*packageChange)
	c.groups = make(map[string]*groupChange)
	for _, ch := range changes {
		u := conda.Classify(ch.Path, ch.IsDir)
		if ch.Op == Deleted {
			c.deletion(ch, u)
			continue
		}
		if ch.Lane {
			c.outcome(ch.Path, fault.New("commit", ch.Path, fault.Busy, errUnpacking))
			continue
		}
		switch u.Kind {
		case conda.RattlerPackage:
			// Its clients open the metadata of what they merely use for writing, too.
			if slices.Contains(u.Sidecars, ch.Path) && c.s.asBefore(ch.Path) {
				continue
			}
			c.packageAt(u.Root).dir = true
		case conda.Package:
			c.packageAt(u.Root).dir = true
		case conda.Archive:
			root, _ := packageRoot(u)
			p := c.packageAt(root)
			p.archives = append(p.archives, u)
		case conda.Repodata:
			g := c.groupOf(u)
			g.changed = append(g.changed, ch.Path)
		case conda.URLs:
			c.lists = append(c.lists, ch.Path)
		case conda.Opaque:
			if c.what == everything {
				c.files = append(c.files, ch.Path)
			} else if c.final {
				c.report.Dropped = append(c.report.Dropped, Note{ch.Path, "it may have been cut short: its command failed"})
			}
		case conda.Dir:
			if c.what == everything && ch.Op == Added && ch.Path != "" {
				c.ops = append(c.ops, &dirOp{s: c.s, path: ch.Path, mode: 0o755})
			}
		}
	}
	// What was published as merely consistent may be more by now.
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	for root, p := range c.packages {
		it := c.s.items[root]
		if it != nil && len(p.archives) > 0 && conda.Trust(it.public.entry.Trust) == conda.TrustConsistent {
			p.dir = true
		}
	}
}

// asBefore reports whether a file of the overlay holds what the session started from.
func (s *Session) asBefore(path string) bool {
	base, err := s.baseOf(path)
	if err != nil || base == nil || base.Kind != index.KindFile {
		return false
	}
	f, err := s.readFile(path, 0)
	if err != nil {
		return false
	}
	f.close()
	return f.sums.Blake3 == base.Digest
}

func (c *committing) packageAt(root string) *packageChange {
	p := c.packages[root]
	if p == nil {
		p = &packageChange{}
		c.packages[root] = p
	}
	return p
}

func (c *committing) groupOf(u conda.Unit) *groupChange {
	g := c.groups[u.Key]
	if g == nil {
		g = &groupChange{unit: u}
		c.groups[u.Key] = g
	}
	return g
}

// deletion takes a deletion in. One of a directory of units is about all that
// the session saw in it.
func (c *committing) deletion(ch Change, u conda.Unit) {
	if err := c.s.forgetSealed(ch.Path); err != nil {
		c.fail(err)
	}
	if c.what != everything || u.Kind == conda.None {
		return
	}
	switch {
	case u.Kind == conda.Repodata:
		g := c.groupOf(u)
		g.deleted = append(g.deleted, ch.Path)
	case u.Kind == conda.Dir:
		c.deleteBelow(ch.Path)
		c.ops = append(c.ops, &deleteOp{s: c.s, path: ch.Path, dir: true, kind: u.Kind})
	default:
		c.ops = append(c.ops, &deleteOp{s: c.s, path: ch.Path, kind: u.Kind})
	}
}

// deleteBelow deletes what the session has seen in a directory.
func (c *committing) deleteBelow(dir string) {
	kinds := make(map[string]index.Kind) // by name; a directory in any space counts
	see := func(name string, kind index.Kind) {
		if kinds[name] != index.KindDir {
			kinds[name] = kind
		}
	}
	for _, space := range spaces(c.s.uid) {
		list, err := c.s.snap.List(space + "/" + dir)
		if err != nil {
			c.fail(err)
			return
		}
		for _, e := range list {
			see(e.Name, e.Kind)
		}
	}
	c.s.mu.Lock()
	for p, it := range c.s.items {
		if rest, below := strings.CutPrefix(p, dir+"/"); below {
			name, _, deeper := strings.Cut(rest, "/")
			if deeper {
				see(name, index.KindDir)
			} else {
				see(name, it.public.entry.Kind)
			}
		}
	}
	c.s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		p := dir + "/" + name
		isDir := kinds[name] == index.KindDir || kinds[name] == index.KindTree
		c.deletion(Change{Path: p, Op: Deleted, IsDir: isDir}, conda.Classify(p, isDir))
	}
}

// prepare checks and seals everything, and makes the operations for what isn't
// sealed.
func (c *committing) prepare(ctx context.Context) error {
	// As many as are checked at a time, and some that wait for them: there may be
	// hundreds of thousands.
	limit := make(chan struct{}, 4*cap(c.s.e.slots))
	var wg sync.WaitGroup
	do := func(f func()) {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			f()
		})
	}
	for root, p := range c.packages {
		do(func() { c.preparePackage(ctx, root, p) })
	}
	for _, g := range c.groups {
		do(func() { c.prepareGroup(ctx, g) })
	}
	for _, p := range c.files {
		do(func() { c.prepareFile(ctx, p) })
	}
	wg.Wait()
	for _, p := range c.lists {
		c.prepareList(p)
	}
	// Not before: it takes files away behind the view's back, and whoever looks at the directory in that moment finds less than
	// there is.
	for _, n := range c.aside {
		if err := c.s.quarantine(n.Path, n.Why); err != nil {
			c.failed = append(c.failed, err)
			continue
		}
		c.report.Quarantined = append(c.report.Quarantined, n)
	}
	return errors.Join(c.failed...)
}

// preparePackage seals a package and its archives.
func (c *committing) preparePackage(ctx context.Context, root string, p *packageChange) {
	before := make([]*item, len(p.archives)) // one that waits may be of another content
	for i, u := range p.archives {
		before[i] = c.s.itemAt(u.Root)
	}
	if p.dir {
		// Its record vouches for the archive, so it is put aside afterwards.
		err := c.s.checkAndSeal(ctx, root)
		defer func() { c.outcome(root, err) }()
	}
	for i, u := range p.archives {
		if c.s.itemAt(u.Root) != before[i] {
			continue // sealed together with its package
		}
		archive, err := c.s.prepareArchive(ctx, u)
		if err == nil {
			err = c.s.sealAll([]*part{archive})
		}
		c.outcome(u.Root, err)
	}
}

// itemAt returns what was sealed at a path, or nil.
func (s *Session) itemAt(path string) *item {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.items[path]
}

// prepareGroup seals the changed members of a group. It is committed whole or
// not at all.
func (c *committing) prepareGroup(ctx context.Context, g *groupChange) {
	members := make([]*part, len(g.changed))
	for i, p := range g.changed {
		var err error
		if members[i], err = c.s.prepareMember(ctx, p); err == nil {
			continue
		}
		c.outcome(p, err)
		c.s.holdBack(g.unit.Key, true)
		for _, other := range slices.Delete(slices.Clone(g.changed), i, i+1) {
			c.outcome(other, fault.New("check repodata", other, fault.KindOf(err), fmt.Errorf("it goes with %s", p)))
		}
		return
	}
	err := c.s.sealAll(members)
	c.s.holdBack(g.unit.Key, err != nil)
	if err != nil {
		c.outcome(g.unit.Root, err)
	}
}

// holdBack keeps a group from being published of which only some members are sealed.
func (s *Session) holdBack(key string, back bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[key] = back
}

// deletions returns the groups of which something was deleted.
func (c *committing) deletions() map[string]*groupChange {
	maps.DeleteFunc(c.groups, func(_ string, g *groupChange) bool { return len(g.deleted) == 0 })
	return c.groups
}

func (c *committing) prepareFile(ctx context.Context, p string) {
	plain, err := c.s.prepareFile(ctx, p, nil)
	if err == nil {
		err = c.s.sealAll([]*part{plain})
	}
	c.outcome(p, err)
}

func (c *committing) prepareList(p string) {
	b, f, err := c.s.readList(p)
	if err != nil {
		c.outcome(p, err)
		return
	}
	e := f.part(c.s, conda.TrustOpaque).public.entry
	c.ops = append(c.ops, &listOp{s: c.s, path: p, entry: e, ours: b})
}

// outcome files what became of one unit.
func (c *committing) outcome(path string, err error) {
	if err == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	note := Note{path, err.Error()}
	corrupt, hopeless := fault.Is(err, fault.Corrupt), hopeless(err)
	switch {
	case corrupt && c.final:
		c.aside = append(c.aside, note)
	case hopeless && c.final:
		c.report.Dropped = append(c.report.Dropped, note)
	default:
		c.report.Pending = append(c.report.Pending, note)
		if !corrupt && !hopeless {
			c.failed = append(c.failed, err)
		}
	}
}

// hopeless reports whether an error will come again: what is incomplete, was
// never closed, is no file, or has a path that nobody could open.
func hopeless(err error) bool {
	switch fault.KindOf(err) {
	case fault.NotFound, fault.Unsupported, fault.Busy:
		return true
	}
	return errors.Is(err, unix.ENAMETOOLONG)
}

func (c *committing) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = append(c.failed, err)
}
