package index

import (
	"slices"
	"strings"
)

// reader is a state of the index: a snapshot, or a snapshot with changes above it.
type reader interface {
	get(dir, name string) (Entry, bool, error)
	list(dir string) ([]DirEntry, error) // sorted by name
}

// layer is a set of changes above a state. Updates of one group stack: each works on
// a layer of its own, which is merged into the group's when it succeeds and dropped
// when it fails.
type layer struct {
	below reader
	dirs  map[string]map[string]*Entry // by directory and name; nil is a deletion
}

func newLayer(below reader) *layer {
	return &layer{below: below, dirs: make(map[string]map[string]*Entry)}
}

func (l *layer) get(dir, name string) (Entry, bool, error) {
	if e, ok := l.dirs[dir][name]; ok {
		if e == nil {
			return Entry{}, false, nil
		}
		return *e, true, nil
	}
	return l.below.get(dir, name)
}

func (l *layer) list(dir string) ([]DirEntry, error) {
	old, err := l.below.list(dir)
	changes := l.dirs[dir]
	if err != nil || len(changes) == 0 {
		return old, err
	}
	out := make([]DirEntry, 0, len(old)+len(changes))
	for _, e := range old {
		if _, changed := changes[e.Name]; !changed {
			out = append(out, e)
		}
	}
	for name, e := range changes {
		if e != nil {
			out = append(out, DirEntry{Name: name, Entry: *e})
		}
	}
	slices.SortFunc(out, func(a, b DirEntry) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (l *layer) set(dir, name string, e *Entry) {
	names := l.dirs[dir]
	if names == nil {
		names = make(map[string]*Entry)
		l.dirs[dir] = names
	}
	names[name] = e
}

// removeBelow marks everything below a directory as deleted.
func (l *layer) removeBelow(dir string) error {
	children, err := l.list(dir)
	if err != nil {
		return err
	}
	for _, c := range children {
		if c.Kind == KindDir {
			if err := l.removeBelow(joinPath(dir, c.Name)); err != nil {
				return err
			}
		}
		l.set(dir, c.Name, nil)
	}
	return nil
}

// mergeInto gives the changes that change something to a layer below and tells how
// many they were.
func (l *layer) mergeInto(dst *layer) (int, error) {
	type change struct {
		dir, name string
		e         *Entry
	}
	var changes []change // all are compared before the first is made
	for dir, names := range l.dirs {
		for name, e := range names {
			old, had, err := dst.get(dir, name)
			if err != nil {
				return 0, err
			}
			if e == nil && !had || e != nil && had && *e == old {
				continue
			}
			changes = append(changes, change{dir, name, e})
		}
	}
	for _, c := range changes {
		dst.set(c.dir, c.name, c.e)
	}
	return len(changes), nil
}
