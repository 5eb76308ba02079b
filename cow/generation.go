package cow

import "strings"

// unitDepth is how deep the top of a unit can be: "rattler/pkgs/NAME". Changes
// are told apart down to there.
const unitDepth = 3

// generations numbers the changes of a view.
type generations struct {
	last  uint64
	at    map[string]uint64 // the last change at a path or below it
	moved map[string]uint64 // the last time that a directory came or went
}

// top cuts a path off below unitDepth.
func top(path string) string {
	end := 0
	for range unitDepth {
		i := strings.IndexByte(path[end:], '/')
		if i < 0 {
			return path
		}
		end += i + 1
	}
	return path[:end-1]
}

func (g *generations) get(path string) uint64 {
	path = top(path)
	gen := max(g.at[path], g.moved[""])
	for more := true; more; path, more = parent(path) {
		gen = max(gen, g.moved[path])
	}
	return gen
}

// parent returns the path of the directory that a path is in, or false for the root's.
func parent(path string) (string, bool) {
	i := strings.LastIndexByte(path, '/')
	if i < 0 {
		return "", false
	}
	return path[:i], true
}

// bump notes a change at a path.
func (g *generations) bump(path string) {
	if g.at == nil {
		g.at = make(map[string]uint64)
	}
	g.last++
	path = top(path)
	for more := true; more; path, more = parent(path) {
		g.at[path] = g.last
	}
}

// bumpBelow notes that everything at and below a path has changed: a directory
// came or went.
func (g *generations) bumpBelow(path string) {
	g.bump(path)
	if g.moved == nil {
		g.moved = make(map[string]uint64)
	}
	g.moved[top(path)] = g.last
}

// Generation returns a number that changes whenever anything at a path or below
// it does, contents and attributes included. Of a path inside a package it may
// change when its neighbours do.
func (v *View) Generation(path string) uint64 {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.gens.get(path)
}

// bumpAll notes that anything may have changed.
func (g *generations) bumpAll() { g.bumpBelow("") }

// touched notes a change of a node. v.mu is held for writing.
func (v *View) touched(n *Node) {
	if v.hasOtherNames(n) {
		v.gens.bumpAll()
	}
	for _, l := range n.links {
		v.gens.bump(l.dir.at(l.name))
	}
}
