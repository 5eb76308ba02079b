package cow

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/proc"
)

// Refs are the nodes and handles of an image, for those who refer to them.
type Refs struct {
	Nodes   map[uint64]*Node // by id
	Handles []*Handle
}

// Draw makes the image of a paused engine, which no client uses meanwhile. known are
// the nodes that the caller has references of. It returns the numbers that handles have
// in the image: their places in Refs.Handles.
func (e *Engine) Draw(known []*Node) (*Image, map[*Handle]int, error) {
	of := make(map[*View][]*Node)
	for _, n := range known {
		of[n.view] = append(of[n.view], n)
	}
	d := &drawing{e: e, img: &Image{LastNode: nodeIDs.Load()}, trees: make(map[hashing.Digest]int), handles: make(map[*Handle]int)}
	e.head.mu.Lock()
	d.img.Head = headImage{e.head.snap.Seq(), d.view(e.head.view, of)}
	e.head.mu.Unlock()
	for _, s := range e.all() {
		img, err := d.session(s)
		if err != nil {
			return nil, nil, err
		}
		img.View = d.view(s.view, of)
		d.img.Sessions = append(d.img.Sessions, img)
	}
	return d.img, d.handles, nil
}

// drawing is an image that is being made.
type drawing struct {
	e       *Engine
	img     *Image
	trees   map[hashing.Digest]int
	handles map[*Handle]int
}

func (d *drawing) view(v *View, known map[*View][]*Node) viewImage {
	img := v.draw(known[v])
	for _, h := range img.handles {
		d.handles[h] = len(d.handles)
	}
	return img.img
}

// tree returns the place of a manifest, one more than that, or 0 for none.
func (d *drawing) tree(t *index.Tree) int {
	if t == nil {
		return 0
	}
	at, ok := d.trees[t.Digest()]
	if !ok {
		d.img.Trees = append(d.img.Trees, t.Encode())
		at = len(d.img.Trees)
		d.trees[t.Digest()] = at
	}
	return at
}

func (d *drawing) form(f form) formImage { return formImage{f.entry, d.tree(f.tree)} }

func (d *drawing) session(s *Session) (sessionImage, error) {
	img := sessionImage{
		ID: s.id, Start: s.start, Fresh: s.start.fresh, Explicit: s.explicit, Foreign: s.foreign, Started: s.started,
		Seq: s.snap.Seq(), Ticket: since(s.ticket), Rattler: since(s.rattlerTicket),
	}
	img.Blobs, img.HeldTrees = s.hold.Contents()
	s.recording.Lock()
	img.Suspended = s.suspended
	s.recording.Unlock()

	d.e.mu.Lock()
	img.State, img.LastUse, img.Killed, img.Outcome, img.Report = string(s.state), s.lastUse, s.killed, s.outcome, s.report
	if s.failure != nil {
		img.Failure = &failureImage{int(fault.KindOf(s.failure)), s.failure.Error()}
	}
	for m := range s.members {
		img.Members = append(img.Members, memberImage{m.ID, m.UID})
	}
	d.e.mu.Unlock()
	if img.State == string(stateEnding) {
		return img, fault.New("hand over session", s.id, fault.Busy, errors.New("it is being committed"))
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	for root, j := range s.jobs {
		if j.running {
			return img, fault.New("hand over session", s.id, fault.Busy, fmt.Errorf("%s is being committed", root))
		}
		img.Jobs = append(img.Jobs, jobImage{root, j.complete, j.again})
	}
	for _, it := range s.items {
		img.Items = append(img.Items, *d.item(it))
	}
	for _, p := range s.stalled {
		img.Stalled = append(img.Stalled, partImage{
			Path: p.path, IsDir: p.public.entry.Kind == index.KindTree, Gen: p.gen,
			Shown: d.form(p.shown), Public: d.form(p.public), Overlay: p.overlay, Lower: p.overlay == nil,
		})
	}
	for _, t := range s.trees {
		img.Trees = append(img.Trees, d.tree(t)-1)
	}
	for key, back := range s.held {
		if back {
			img.Held = append(img.Held, key)
		}
	}
	for path, was := range s.removed {
		if was {
			img.Removed = append(img.Removed, path)
		}
	}
	for _, p := range s.pins {
		img.Pins = append(img.Pins, p.Seq())
	}
	img.Recorded, img.Gone = s.recorded, s.gone
	img.Flight = d.e.flights.of(s)
	return img, nil
}

func since(t ShelfTicket) *uint64 {
	if t == nil {
		return nil
	}
	gen := t.Since()
	return &gen
}

// of returns the packages that a session is on the way with.
func (f *flights) of(s *Session) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.by[s] == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(f.by[s].roots))
}

// Resume makes an engine that goes on from an image. The store must have inherited the
// image's Pins, and this process its Descriptors. Until Continue is called the engine
// is paused. What fails has changed nothing: another process can still resume it.
func Resume(store *index.Store, o Options, img *Image) (*Engine, *Refs, error) {
	e, err := newEngine(store, o)
	if err != nil {
		return nil, nil, err
	}
	e.paused = true
	e.unwait()
	if err := img.Check(); err != nil {
		return nil, nil, err
	}
	r := &restoring{e: e, img: img, refs: &Refs{Nodes: make(map[uint64]*Node)}}
	if err := r.restore(); err != nil {
		return nil, nil, err
	}
	return e, r.refs, nil
}

// Check makes sure that what the image refers to is there. What is not is fault.Corrupt.
func (i *Image) Check() error {
	if err := i.check(); err != nil {
		return fault.New("resume", "", fault.Corrupt, err)
	}
	return nil
}

func (i *Image) check() error {
	ids := make(map[uint64]bool)
	for _, v := range i.views() {
		if err := v.check(i.LastNode); err != nil {
			return err
		}
		for _, n := range v.Nodes {
			if ids[n.ID] {
				return fmt.Errorf("%w: two nodes are %d", errImage, n.ID)
			}
			ids[n.ID] = true
		}
	}
	seen := make(map[string]bool)
	for _, s := range i.Sessions {
		switch state(s.State) {
		case stateActive, stateKept, stateWaiting, stateEnded:
		default:
			return fmt.Errorf("%w: session %q is %q", errImage, s.ID, s.State)
		}
		if seen[s.ID] || s.ID == "" || strings.Trim(s.ID, idAlphabet) != "" { // it becomes part of a path
			return fmt.Errorf("%w: session %q", errImage, s.ID)
		}
		seen[s.ID] = true
		refs := make([]int, 0, len(s.Trees))
		for _, t := range s.Trees {
			refs = append(refs, t+1)
		}
		for _, it := range s.Items {
			refs = append(refs, it.Public.Tree)
		}
		for _, p := range s.Stalled {
			refs = append(refs, p.Public.Tree, p.Shown.Tree)
		}
		for _, t := range refs {
			if t < 0 || t > len(i.Trees) {
				return fmt.Errorf("%w: session %q has tree %d", errImage, s.ID, t)
			}
		}
	}
	return nil
}

// restoring is an engine that is being made from an image.
type restoring struct {
	e     *Engine
	img   *Image
	refs  *Refs
	trees []*index.Tree // the first is nil
}

func (r *restoring) restore() error {
	r.trees = []*index.Tree{nil}
	for _, b := range r.img.Trees {
		t, err := index.DecodeTree(b)
		if err != nil {
			return err
		}
		r.trees = append(r.trees, t)
	}
	if err := r.head(); err != nil {
		return err
	}
	for i := range r.img.Sessions {
		if err := r.session(&r.img.Sessions[i]); err != nil {
			return err
		}
	}
	nodeIDs.Store(max(r.img.LastNode, nodeIDs.Load()))
	return errors.Join(r.e.makeRoots(), r.e.withdraw())
}

func (r *restoring) note(nodes []*Node, handles []*Handle) {
	for _, n := range nodes {
		r.refs.Nodes[n.id] = n
	}
	r.refs.Handles = append(r.refs.Handles, handles...)
}

func (r *restoring) head() error {
	e := r.e
	snap, err := e.store.Inherited(r.img.Head.Seq)
	if err != nil {
		return err
	}
	v, nodes, handles, err := restoreView(pinned{snap, e.store}, "", spaces(e.owner), e.owner, e.gid, nil, &r.img.Head.View)
	if err != nil {
		return err
	}
	v.onInvalid(e.entryChanged)
	e.head = &headView{e: e, view: v, snap: snap}
	r.note(nodes, handles)
	return nil
}

func (r *restoring) session(img *sessionImage) error {
	e := r.e
	snap, err := e.store.Inherited(img.Seq)
	if err != nil {
		return err
	}
	img.Start.fresh = img.Fresh
	s := e.blankSession(img.ID, img.Start, img.Explicit, snap)
	s.foreign, s.started, s.suspended = img.Foreign, img.Started, img.Suspended
	for _, seq := range img.Pins {
		pin, err := e.store.Inherited(seq)
		if err != nil {
			return err
		}
		s.pins = append(s.pins, pin)
	}
	s.hold.Blob(img.Blobs...)
	for _, d := range img.HeldTrees {
		s.hold.Tree(d)
	}
	r.content(s, img)
	src := s.enterShelves(pinned{snap, e.store}, img.Ticket, img.Rattler)
	v, nodes, handles, err := restoreView(sealedSource{src, s}, s.upper(), spaces(s.uid), s.uid, s.gid, s.event, &img.View)
	if err != nil {
		return err
	}
	s.adoptView(v)
	v.account.resume()
	v.account.keep(int64(len(v.handles) + len(v.orphans)))
	r.note(nodes, handles)
	for _, root := range img.Flight {
		e.flights.mu.Lock()
		e.flights.take(s, root)
		e.flights.mu.Unlock()
	}
	return r.enter(s, img)
}

// item draws what was sealed at a path.
func (d *drawing) item(it *item) *itemImage {
	if it == nil {
		return nil
	}
	return &itemImage{it.path, d.form(it.public), it.base, it.settled, it.manifest, d.item(it.before)}
}

// content restores what is known of what was sealed.
func (r *restoring) content(s *Session, img *sessionImage) {
	form := func(f formImage) form { return form{f.Entry, r.trees[f.Tree]} }
	for _, j := range img.Jobs {
		s.jobs[j.Root] = &job{complete: j.Complete, again: j.Again}
	}
	var restore func(it *itemImage) *item
	restore = func(it *itemImage) *item {
		if it == nil {
			return nil
		}
		return &item{
			unit: conda.Classify(it.Path, it.Public.Entry.Kind == index.KindTree), path: it.Path,
			public: form(it.Public), base: it.Base, settled: it.Settled, manifest: it.Manifest, before: restore(it.Before),
		}
	}
	for _, it := range img.Items {
		s.items[it.Path] = restore(&it)
	}
	for _, p := range img.Stalled {
		q := &part{unit: conda.Classify(p.Path, p.IsDir), path: p.Path, gen: p.Gen, shown: form(p.Shown), public: form(p.Public), overlay: p.Overlay}
		if q.overlay == nil && !p.Lower {
			q.overlay = make(map[string]hashing.Digest) // of a link: nothing has to move
		}
		s.stalled[p.Path] = q
	}
	for _, t := range img.Trees {
		s.trees[r.trees[t+1].Digest()] = r.trees[t+1]
	}
	for _, key := range img.Held {
		s.held[key] = true
	}
	for _, path := range img.Removed {
		s.removed[path] = true
	}
	s.recorded, s.gone = img.Recorded, img.Gone
}

// enter makes the session one of the engine's, with its members.
func (r *restoring) enter(s *Session, img *sessionImage) error {
	e := r.e
	e.mu.Lock()
	s.state, s.lastUse, s.killed, s.outcome, s.report = state(img.State), img.LastUse, img.Killed, img.Outcome, img.Report
	if img.Failure != nil {
		s.failure = fault.New("", "", fault.Kind(img.Failure.Kind), errors.New(img.Failure.Text))
	}
	e.sessions[s.id] = s
	if s.foreign && s.state == stateActive {
		e.foreign[s.uid] = s
	}
	e.mu.Unlock()
	if s.foreign {
		e.endWhenUnused(s)
	}
	for _, m := range img.Members {
		if err := r.member(s, member{m.ID, m.UID}); err != nil {
			return err
		}
	}
	return nil
}

// member watches one of a session's processes again. Join would take it for one that
// is new.
func (r *restoring) member(s *Session, m member) error {
	e := r.e
	e.mu.Lock()
	defer e.mu.Unlock()
	cancel, err := e.o.Procs.Watch(m.ID, func(exit proc.Exit) { e.exited(m, s, exit) })
	if err != nil {
		return err
	}
	e.members[m], s.members[m] = s, cancel
	return nil
}
