package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"condafs/conda"
	"condafs/control"
	"condafs/cow"
	"condafs/fault"
	"condafs/index"
)

// caches are the directories of packages on the mount.
var caches = []string{"pkgs", "rattler/pkgs"}

// spaces lists the parts of the head that the peer may see: what all users share,
// and what only their publisher sees.
func (a *api) spaces(head *index.Snapshot) ([]string, error) {
	if !a.all {
		return []string{cow.SharedSpace, cow.PrivateSpace(a.peer.UID)}, nil
	}
	l, err := head.List("")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range l {
		names = append(names, e.Name)
	}
	return names, nil
}

// each calls f for every package directory and archive that the peer may see.
func (a *api) each(head *index.Snapshot, f func(space, dir string, e index.DirEntry)) error {
	spaces, err := a.spaces(head)
	if err != nil {
		return err
	}
	for _, space := range spaces {
		for _, dir := range caches {
			if d, ok, err := head.Get(path.Join(space, dir)); err != nil {
				return err
			} else if !ok || d.Kind != index.KindDir {
				continue
			}
			if err := below(head, space, dir, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// below is each for one directory. Newer mambas keep packages in directories
// named after the channel, so it goes down.
func below(head *index.Snapshot, space, dir string, f func(space, dir string, e index.DirEntry)) error {
	l, err := head.List(path.Join(space, dir))
	if err != nil {
		return err
	}
	for _, e := range l {
		at := path.Join(dir, e.Name)
		switch e.Kind {
		case index.KindDir:
			if err := below(head, space, at, f); err != nil {
				return err
			}
		case index.KindTree:
			f(space, dir, e)
		case index.KindFile:
			if conda.Classify(at, false).Kind == conda.Archive {
				f(space, dir, e)
			}
		}
	}
	return nil
}

func (a *api) countArchives() (int64, error) {
	head := a.store.PinHead()
	defer head.Release()
	var n int64
	err := a.each(head, func(_, _ string, e index.DirEntry) {
		if e.Kind == index.KindFile {
			n++
		}
	})
	return n, err
}

func (a *api) Packages(context.Context) ([]control.Package, error) {
	head := a.store.PinHead()
	defer head.Release()
	return a.list(head)
}

func (a *api) list(head *index.Snapshot) ([]control.Package, error) {
	type key struct{ space, dir, name string }
	found := map[key]*control.Package{}
	get := func(space, dir, name string) *control.Package {
		k := key{space, dir, name}
		p := found[k]
		if p == nil {
			p = &control.Package{Name: name, Directory: dir, Shared: space == cow.SharedSpace}
			found[k] = p
		}
		return p
	}
	err := a.each(head, func(space, dir string, e index.DirEntry) {
		trust := conda.Trust(e.Trust).String()
		switch e.Kind {
		case index.KindTree:
			p := get(space, dir, e.Name)
			p.Extracted, p.Trust, p.Size, p.SHA256, p.Owner = true, trust, e.Size, e.SHA256, e.Owner
		case index.KindFile:
			name, _ := conda.CutArchiveExt(e.Name)
			p := get(space, dir, name)
			p.Archive = &control.Archive{FileName: e.Name, Size: e.Size, SHA256: e.SHA256, Trust: trust}
			if !p.Extracted {
				p.Trust, p.Owner = trust, e.Owner
				p.SHA256 = cmp.Or(p.SHA256, e.SHA256)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	l := make([]control.Package, 0, len(found))
	for _, p := range found {
		l = append(l, *p)
	}
	slices.SortFunc(l, func(a, b control.Package) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Directory, b.Directory), cmp.Compare(a.Owner, b.Owner))
	})
	return l, nil
}

func (a *api) Package(_ context.Context, name string) (*control.PackageFiles, error) {
	const op = "list package"
	name, _ = conda.CutArchiveExt(name)
	head := a.store.PinHead()
	defer head.Release()
	l, err := a.list(head)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(l, func(p control.Package) bool { return p.Name == name })
	if i < 0 {
		return nil, fault.New(op, name, fault.NotFound, errors.New("no such package in the newest snapshot")).WithHint(a.similar(l, name))
	}
	out := &control.PackageFiles{Package: l[i], Entries: []control.File{}}
	if !out.Extracted {
		return out, nil
	}
	space := cow.SharedSpace
	if !out.Shared {
		space = cow.PrivateSpace(out.Owner)
	}
	e, ok, err := head.Get(path.Join(space, out.Directory, name))
	if err != nil {
		return nil, err
	}
	if !ok || e.Kind != index.KindTree {
		return nil, fault.New(op, name, fault.Corrupt, errors.New("the snapshot lists it and does not have it"))
	}
	tree, err := a.store.Tree(e.Digest)
	if err != nil {
		return nil, err
	}
	for p, t := range tree.All() {
		if p == "" {
			continue
		}
		out.Entries = append(out.Entries, file(p, t))
	}
	return out, nil
}

func file(p string, t index.TreeEntry) control.File {
	f := control.File{Path: p, Mode: fmt.Sprintf("%04o", t.Mode), Size: t.Size, Target: t.Link}
	switch t.Kind {
	case index.KindDir:
		f.Type = "directory"
	case index.KindSymlink:
		f.Type = "symlink"
	default:
		f.Type, f.Blake3 = "file", t.Digest.String()
	}
	return f
}

// similar hints at packages of the same name in other versions.
func (a *api) similar(l []control.Package, name string) string {
	want := name
	if n, _, _, ok := conda.SplitDist(name); ok {
		want = n
	}
	var names []string
	for _, p := range l {
		if n, _, _, ok := conda.SplitDist(p.Name); ok && n == want && !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		return "`condafs ls` lists what is there"
	}
	const most = 5
	if len(names) > most {
		names = append(names[:most], "…")
	}
	return "there are " + strings.Join(names, ", ")
}
