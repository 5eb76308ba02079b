package integration

import (
	"os"
	"path/filepath"
	"testing"
)

// The tests of this file are about the tests' own tools, on plain directories: a client alone breaks nothing there, and
// the judge finds what is broken. Otherwise the counts of the others would mean nothing.

func TestOneClientAloneOnAPlainDirectory(t *testing.T) {
	t.Parallel()
	s, env, dir := serve(t), envs(t), testDir(t)
	pkgs, cache := filepath.Join(dir, "pkgs"), filepath.Join(dir, "rattler")
	inOrder := []*client{
		conda(t, s, pkgs, env("conda", 0), "universe", "--extract", "process"),
		conda(t, s, pkgs, env("conda", 1), "universe"),
		conda(t, s, pkgs, env("conda", 2), "world", "--copy"),
		rattler(t, s, cache, env("rattler", 0), "universe"),
		rattler(t, s, cache, env("rattler", 1), "world"),
		extractor(t, filepath.Join(dir, "cph"), "cph", "--processes", "2"),
		extractor(t, filepath.Join(dir, "cps"), "cps"),
	}
	for _, c := range inOrder {
		atOnce(t, c)
	}
	mustBeRight(t, inOrder...)
	j := judge(t, "universe", "--cache", pkgs, "--cache", filepath.Join(dir, "cph"), "--cache", filepath.Join(dir, "cps"), "--rattler-cache", cache)
	if !j.OK || j.Leftovers > 0 {
		t.Errorf("a client alone broke something: %+v", j)
	}
	if most := 2 * j.ArchivesOK / 3; s.stats().ArchiveRequests > most {
		t.Errorf("%d archives were served; warm clients should need none", s.stats().ArchiveRequests)
	}
}

// A plain directory keeps what a dead or cut-off client leaves, and conda mends it when it comes alone.
func TestClientComesBackOnAPlainDirectory(t *testing.T) {
	t.Parallel()
	s, env := serve(t), envs(t)
	for i, point := range []string{"download:odd", "record:odd", "append:odd", "link:odd"} {
		t.Run(point, func(t *testing.T) {
			pkgs := filepath.Join(testDir(t), "pkgs")
			dies(t, conda(t, s, pkgs, env("victim", i), "odd", "--die-at", point))
			next := conda(t, s, pkgs, env("next", i), "odd")
			atOnce(t, next)
			mustBeRight(t, next)
			if j := judge(t, "odd", "--cache", pkgs); !j.OK {
				t.Errorf("conda alone did not mend the cache: %+v", j)
			}
		})
	}
}

// What conda does not mend: the info part of a package is extracted first, and with info/index.json there the rest is
// never missed, until an environment is to be made of it. TestKilledClientLeavesNothing has the same death on condafs.
func TestHalfAPackageStaysOnAPlainDirectory(t *testing.T) {
	t.Parallel()
	s, env := serve(t), envs(t)
	pkgs := filepath.Join(testDir(t), "pkgs")
	dies(t, conda(t, s, pkgs, env("victim", 0), "odd", "--die-at", "extract:odd"))
	for i := range 2 {
		next := conda(t, s, pkgs, env("next", i), "odd")
		atOnce(t, next)
		if next.err == nil || judgeClients(t, next).OK {
			t.Errorf("the client mended what conda does not: it is no longer like conda")
		}
	}
}

func dies(t *testing.T, victim *client) {
	t.Helper()
	atOnce(t, victim)
	if victim.err == nil {
		t.Fatalf("the client was to die and did not: %s", victim.stdout.String())
	}
}

func TestDownloadsAreResumed(t *testing.T) {
	t.Parallel()
	s, env := serve(t), envs(t)
	pkgs := filepath.Join(testDir(t), "pkgs")
	s.control("faults?drop=1")
	cut := conda(t, s, pkgs, env("cut", 0), "lib00")
	atOnce(t, cut)
	if cut.err == nil {
		t.Fatal("the client did not notice that its download broke off")
	}
	s.control("faults?drop=0")
	s.reset()
	next := conda(t, s, pkgs, env("next", 0), "lib00")
	atOnce(t, next)
	mustBeRight(t, next)
	st, err := os.Stat(one(t, pkgs, "lib00-", ".conda"))
	if err != nil {
		t.Fatal(err)
	}
	repodata := int64(200_000) // more than both files have
	if sent := s.stats().Bytes; sent > st.Size()/2+1+repodata {
		t.Errorf("%d bytes were served for the second half of %d", sent, st.Size())
	}
}

func TestJudgeFindsDamage(t *testing.T) {
	t.Parallel()
	s, env := serve(t), envs(t)
	pkgs := filepath.Join(testDir(t), "pkgs")
	c := conda(t, s, pkgs, env("env", 0), "lib00,odd", "--copy")
	atOnce(t, c)
	mustBeRight(t, c)
	spoil(t, pkgs, "lib00-", "info/index.json")
	truncate(t, pkgs, "odd-", ".conda")
	if j := judge(t, "lib00,odd", "--cache", pkgs); j.OK || j.DirectoriesBroken != 1 || j.ArchivesCorrupt != 1 || j.ArchivesOK != 1 {
		t.Errorf("the cache: %+v", j)
	}
	damage := []struct {
		name   string
		change func(prefix string) error
	}{
		{"a missing file", func(p string) error { return os.Remove(filepath.Join(p, "share/odd/real.txt")) }},
		{"another byte", func(p string) error { return os.WriteFile(filepath.Join(p, "share/odd/real.txt"), []byte("x"), 0o644) }},
		{"another link", func(p string) error {
			return os.Symlink("elsewhere", filepath.Join(p, "share/odd/to-file"))
		}},
		{"no executable bit", func(p string) error { return os.Chmod(filepath.Join(p, "bin/odd-tool"), 0o644) }},
		{"no record", func(p string) error { return os.Remove(filepath.Join(p, "conda-meta/odd-1.0-0.json")) }},
		{"the placeholder", func(p string) error {
			return os.WriteFile(filepath.Join(p, "bin/lib00-config"), []byte("#!/home/builder/bin/python\n"), 0o755)
		}},
	}
	for i, d := range damage {
		t.Run(d.name, func(t *testing.T) {
			c := conda(t, s, filepath.Join(testDir(t), "pkgs"), env("damaged", i), "lib00,odd", "--copy")
			atOnce(t, c)
			mustBeRight(t, c)
			if d.name == "another link" {
				if err := os.Remove(filepath.Join(c.prefix, "share/odd/to-file")); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.change(c.prefix); err != nil {
				t.Fatal(err)
			}
			if j := judgeClients(t, c); j.OK || j.EnvironmentsBroken != 1 {
				t.Errorf("not found: %+v", j)
			}
		})
	}
}
