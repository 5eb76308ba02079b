package cow

import (
	"testing"

	"golang.org/x/sys/unix"
)

// sums returns how an archive was hashed, or nil.
func (c *client) sums(f *fixture) *archiveSums {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	return c.s.archives["pkgs/"+f.fn()]
}

func TestArchiveIsHashedWhenItIsThere(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.download(f)
	w.await()
	sums := c.sums(f)
	if sums == nil {
		t.Fatal("not hashed")
	}
	c.extract(f)
	c.finish(f)
	w.await()
	if c.sums(f) != sums {
		t.Error("hashed again for its package")
	}
	if w.trust(shared+f.dist) != "verified" || w.trust(shared+f.fn()) != "verified" {
		t.Errorf("package %q, archive %q", w.trust(shared+f.dist), w.trust(shared+f.fn()))
	}
	c.finish(f) // as conda does
	w.await()
	if c.sums(f) != sums {
		t.Error("hashed again for another record")
	}
	w.exit(pid)
	if got := w.headFile(shared + f.fn()); got != f.archive {
		t.Error("the archive is another one")
	}
}

// What was hashed of an archive says nothing about what was written to it afterwards.
func TestArchiveIsChangedAfterItWasHashed(t *testing.T) {
	for name, change := range map[string]func(*client, *fixture){
		"written to": func(c *client, f *fixture) {
			h, done, err := c.open("pkgs/"+f.fn(), unix.O_RDWR)
			c.must(err)
			_, err = h.WriteAt([]byte{^f.archive[40]}, 40)
			c.must(err)
			done()
		},
		"replaced": func(c *client, f *fixture) {
			c.write("pkgs/x.partial", "x"+f.archive[1:])
			c.rename("pkgs/x.partial", "pkgs/"+f.fn())
		},
		"moved away and back, changed": func(c *client, f *fixture) {
			c.rename("pkgs/"+f.fn(), "pkgs/y")
			c.write("pkgs/y", "y"+f.archive[1:])
			c.rename("pkgs/y", "pkgs/"+f.fn())
		},
		"while its directory is elsewhere": func(c *client, f *fixture) {
			c.rename("pkgs", "elsewhere")
			c.write("elsewhere/"+f.fn(), "z"+f.archive[1:])
			c.rename("elsewhere", "pkgs")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			f := makePackage(t, "tool-1.0-0", nil)
			pid, c := w.process()
			c.download(f)
			w.await()
			if c.sums(f) == nil {
				t.Fatal("not hashed")
			}
			change(c, f)
			c.extract(f)
			c.finish(f)
			w.await()
			w.exit(pid)
			if got := w.trust(shared + f.fn()); got == "verified" {
				t.Errorf("the archive is %q", got)
			}
			if got := w.trust(shared + f.dist); got == "verified" {
				t.Errorf("the package is %q", got)
			}
		})
	}
}
