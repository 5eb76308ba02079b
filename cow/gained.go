package cow

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"condafs/index"
)

// gained is the layer between overlay and snapshot: what the view took in after
// its snapshot was made, by path. Its file remembers that for a daemon that
// takes the overlay up again. It is guarded by the view's lock.
type gained struct {
	file string
	log  *os.File
	dirs map[string]map[string]*gain // by the directory's path, then by name
	seen int                         // records so far

	account *account // what the file takes is the user's
}

// gain is one thing that was gained.
type gain struct {
	obj   *object
	entry index.Entry
	gone  bool // not any more, but others know it: if the name is removed, a whiteout must say so
}

// gainRecord is a line of the file. Paths are bytes: they need not be UTF-8.
type gainRecord struct {
	Path  []byte
	Entry index.Entry
	Gone  bool `json:",omitempty"`
	Drop  bool `json:",omitempty"` // nothing is known of the path any more
}

func splitPath(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

func (g *gained) open(file string) error {
	g.file = file
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	dec := json.NewDecoder(bufio.NewReader(f))
	for {
		whole := dec.InputOffset()
		var r gainRecord
		switch err := dec.Decode(&r); {
		case err == io.EOF:
			return nil
		case err != nil:
			return f.Truncate(whole) // the daemon died while it wrote the last line
		}
		g.apply(&r)
	}
}

func (g *gained) close() error {
	if g.log == nil {
		return nil
	}
	err := g.log.Close()
	g.log = nil
	return err
}

func (g *gained) apply(r *gainRecord) {
	dir, name := splitPath(string(r.Path))
	if r.Drop {
		delete(g.dirs[dir], name)
		if len(g.dirs[dir]) == 0 {
			delete(g.dirs, dir)
		}
		return
	}
	if g.dirs == nil {
		g.dirs = make(map[string]map[string]*gain)
	}
	if g.dirs[dir] == nil {
		g.dirs[dir] = make(map[string]*gain)
	}
	o := newObject(string(r.Path), name, &r.Entry)
	// A name of the same file may live on in the overlay with the inode number of
	// what was here before.
	g.seen++
	o.ino = treeIno(o.ino, g.seen)
	if o.pkg != nil {
		o.pkg.seed = o.ino
	}
	g.dirs[dir][name] = &gain{o, r.Entry, r.Gone}
}

func (g *gained) record(r gainRecord) error {
	if g.file == "" {
		return unix.EROFS
	}
	if g.log == nil {
		f, err := os.OpenFile(g.file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		g.log = f
	}
	b, err := json.Marshal(&r)
	if err != nil {
		return err
	}
	if err := g.append(append(b, '\n')); err != nil {
		return err
	}
	g.apply(&r)
	return nil
}

// append writes a line, or nothing: a part of one would hide all that follow.
func (g *gained) append(line []byte) error {
	fi, err := g.log.Stat()
	if err != nil {
		return err
	}
	g.account.grow(int64(len(line)), 0)
	if _, err = g.log.Write(line); err != nil {
		err = errors.Join(err, g.log.Truncate(fi.Size()))
	}
	return err
}

// gainedEntries returns what the view has gained and shows, by path.
func (v *View) gainedEntries() map[string]index.Entry {
	v.mu.RLock()
	defer v.mu.RUnlock()
	all := make(map[string]index.Entry)
	for dir, names := range v.gained.dirs {
		for name, e := range names {
			if !e.gone {
				all[join(dir, name)] = e.entry
			}
		}
	}
	return all
}

// loseGained forgets what was gained at a path, and is lost. Nobody has looked at the view yet.
func (v *View) loseGained(path string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.gained.record(gainRecord{Path: []byte(path), Drop: true})
}

func (g *gained) empty() bool { return len(g.dirs) == 0 }

// get returns what was gained at a name and can be seen unless the overlay hides it.
func (g *gained) get(dir, name string) *object {
	if e := g.dirs[dir][name]; e != nil && !e.gone {
		return e.obj
	}
	return nil
}

// each calls f for what can be seen in a directory.
func (g *gained) each(dir string, f func(o *object) bool) {
	for _, e := range g.dirs[dir] {
		if !e.gone && !f(e.obj) {
			return
		}
	}
}

// has reports whether anything was ever gained at a path or below.
func (g *gained) has(path string) bool {
	dir, name := splitPath(path)
	if g.dirs[dir][name] != nil {
		return true
	}
	for d := range g.dirs {
		if d == path || strings.HasPrefix(d, path+"/") {
			return true
		}
	}
	return false
}

// was returns what was gained at a path, also if it has gone since.
func (g *gained) was(path string) *gain {
	dir, name := splitPath(path)
	return g.dirs[dir][name]
}

// put adds an entry, which takes the place of all that was gained there and below.
func (g *gained) put(path string, e index.Entry) error {
	var drop []gainRecord
	for d, names := range g.dirs {
		if within(d, path) {
			for name := range names {
				drop = append(drop, gainRecord{Path: []byte(join(d, name)), Drop: true})
			}
		}
	}
	for _, r := range append(drop, gainRecord{Path: []byte(path), Entry: e}) {
		if err := g.record(r); err != nil {
			return err
		}
	}
	return nil
}

// relocation is a directory that was renamed, or removed if to is empty.
type relocation struct{ from, to string }

// follow moves what is below directories along with them, all at once. Their old
// paths are remembered if anybody can have seen something there.
func (g *gained) follow(moves ...relocation) error {
	var drop, gone, add []gainRecord
	for _, m := range moves {
		if !g.has(m.from) {
			continue
		}
		for d, names := range g.dirs {
			if !within(d, m.from) {
				continue
			}
			for name, e := range names {
				p := join(d, name)
				drop = append(drop, gainRecord{Path: []byte(p), Drop: true})
				gone = append(gone, gainRecord{Path: []byte(p), Entry: e.entry, Gone: true})
				if m.to != "" {
					add = append(add, gainRecord{Path: []byte(m.to + p[len(m.from):]), Entry: e.entry, Gone: e.gone})
				}
			}
		}
		gone = append(gone, gainRecord{Path: []byte(m.from), Gone: true, Entry: index.Entry{Kind: index.KindDir}})
	}
	for _, r := range slices.Concat(drop, gone, add) { // two may change places
		if err := g.record(r); err != nil {
			return err
		}
	}
	return nil
}

// reset forgets everything: the snapshot is a new one.
func (g *gained) reset() error {
	g.dirs = nil
	if g.file == "" {
		return nil
	}
	err := g.close()
	if rerr := os.Remove(g.file); !errors.Is(rerr, fs.ErrNotExist) {
		err = errors.Join(err, rerr)
	}
	return err
}
