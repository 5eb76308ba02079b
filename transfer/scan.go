package transfer

import (
	"io/fs"
	"os"
	"slices"

	"condafs/conda"
	"condafs/fault"
)

// group is what a directory holds of one name-version-build.
type group struct {
	name     string
	archives []string // file names
	dir      bool     // an extracted directory is there
}

// scan sorts what lies in a package directory into groups, in order of names, and
// notes what is no package.
func scan(root *os.Root) (groups []*group, lists []string, skipped []Note, err error) {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, nil, nil, fault.New("import", root.Name(), fault.Other, err)
	}
	byName := map[string]*group{}
	get := func(name string) *group {
		g := byName[name]
		if g == nil {
			g = &group{name: name}
			byName[name] = g
			groups = append(groups, g)
		}
		return g
	}
	for _, e := range entries {
		name := e.Name()
		skip := func(why string) { skipped = append(skipped, Note{name, why}) }
		if e.Type()&fs.ModeSymlink != 0 {
			skip("a symbolic link")
			continue
		}
		if !e.IsDir() && !e.Type().IsRegular() {
			skip("neither file nor directory")
			continue
		}
		switch u := conda.Classify(cache+"/"+name, e.IsDir()); u.Kind {
		case conda.Package:
			get(name).dir = true
		case conda.Archive:
			stem, _ := conda.CutArchiveExt(name)
			g := get(stem)
			g.archives = append(g.archives, name)
		case conda.URLs:
			if slices.Contains(urlLists, name) {
				lists = append(lists, name)
			}
		case conda.None:
			skip("a temporary name or a lock")
		case conda.Repodata:
			skip("repodata, which clients fetch again")
		case conda.Dir:
			skip("no package; clients make such directories again")
		default:
			skip("no package")
		}
	}
	return groups, lists, skipped, nil
}
