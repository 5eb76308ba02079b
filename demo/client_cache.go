package demo

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"crypto/md5"
	"encoding/hex"
)

const (
	archiveExt = ".conda"
	partialExt = ".partial"
	holdExt    = ".c~"
)

// cache is a package directory as one client sees it: read once, then remembered.
type cache struct {
	dir      string
	urls     []string // newest first
	readOnly bool

	// more are directories that are searched and never written to.
	more []*cache

	mu      sync.Mutex
	records map[string]record // by dist name; nil until the directory has been read
}

func openCache(dir string) *cache {
	c := &cache{dir: dir}
	if b, err := os.ReadFile(c.path("urls.txt")); err == nil {
		c.urls = strings.Fields(string(b))
		slices.Reverse(c.urls)
	}
	return c
}

// openCaches opens the package directories of a list with commas. conda would write to the first
// that it can; here the others are taken to be read-only.
func openCaches(list string) *cache {
	dirs := strings.Split(list, ",")
	c := openCache(dirs[0])
	for _, dir := range dirs[1:] {
		more := openCache(dir)
		more.readOnly = true
		c.more = append(c.more, more)
	}
	return c
}

// find returns the directory that an extracted package is linked from: the writable one before others.
func (c *cache) find(dist string) *cache {
	for _, in := range append([]*cache{c}, c.more...) {
		if _, ok := in.records[dist]; ok && in.extracted(dist) {
			return in
		}
	}
	return nil
}

func (c *cache) path(elem ...string) string {
	return filepath.Join(append([]string{c.dir}, elem...)...)
}

// writable opens urls.txt for appending, which is how conda finds out.
func (c *cache) writable() bool {
	if !isFile(c.path("urls.txt")) {
		return false
	}
	f, err := os.OpenFile(c.path("urls.txt"), os.O_APPEND|os.O_RDWR|os.O_CREATE, 0o666)
	return err == nil && f.Close() == nil
}

// makeWritable makes the directory with its two magic files unless it is there.
func (c *cache) makeWritable() error {
	if c.writable() {
		return nil
	}
	if err := os.MkdirAll(c.dir, 0o777); err != nil {
		return err
	}
	for _, name := range []string{"urls.txt", "urls"} {
		f, err := os.OpenFile(c.path(name), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

func (c *cache) addURL(url string) error {
	f, err := os.OpenFile(c.path("urls.txt"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	_, err = f.WriteString(url + "\n")
	return errors.Join(err, f.Close())
}

func (c *cache) urlOf(fn string) string {
	for _, u := range c.urls {
		if strings.HasSuffix(u, "/"+fn) {
			return u
		}
	}
	return ""
}

// load reads the directory. Like conda's, it is no mere reader: it extracts archives that have no complete directory.
func (c *cache) load() error {
	if c.records != nil {
		return nil
	}
	c.records = map[string]record{}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, e := range entries {
		dist, isArchive := strings.CutSuffix(e.Name(), archiveExt)
		if isArchive || isFile(c.path(e.Name(), "info", "index.json")) {
			names[dist] = true
		}
	}
	for dist := range names {
		r, ok, err := c.recordOf(dist)
		if err != nil {
			return err
		}
		if ok {
			c.records[dist] = r
		}
	}
	// conda, too, reads what it can write to before the others: condafs lets it wait there while others bring packages,
	// which are on the shelf then.
	for _, more := range c.more {
		if err := more.load(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// recordOf makes a record of what is there: from the record file, or from the package's own index, or, if there is
// only an archive or half a directory, by extracting the archive anew.
func (c *cache) recordOf(dist string) (record, bool, error) {
	var r record
	if readJSON(c.path(dist, "info", "repodata_record.json"), &r) == nil && r.Name != "" {
		return r, true, nil
	}
	if c.readOnly {
		return r, false, nil
	}
	archive := c.path(dist + archiveExt)
	index := c.path(dist, "info", "index.json")
	r = record{}
	if readJSON(index, &r) != nil {
		if isDir(c.path(dist)) && !isFile(archive) {
			return r, false, nil
		}
		removeAll(c.path(dist))
		if err := extractConda(archive, c.path(dist)); errors.Is(err, os.ErrNotExist) || readJSON(index, &r) != nil {
			removeAll(archive)
			removeAll(c.path(dist))
			return r, false, nil
		}
	}
	r.Fn, r.URL = dist+archiveExt, c.urlOf(dist+archiveExt)
	if b, err := os.Open(archive); err == nil {
		h := md5.New()
		n, err := io.Copy(h, b)
		if err := errors.Join(err, b.Close()); err != nil {
			return r, false, err
		}
		r.MD5, r.Size = hex.EncodeToString(h.Sum(nil)), n
	}
	return r, true, writeJSON(c.path(dist, "info", "repodata_record.json"), r)
}

// insert writes the record, which conda does a second time here, and remembers it.
func (c *cache) insert(r record) error {
	if err := writeJSON(c.path(r.dist(), "info", "repodata_record.json"), r); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.records[r.dist()] = r
	return nil
}

func (c *cache) extracted(dist string) bool { return isFile(c.path(dist, "info", "index.json")) }
