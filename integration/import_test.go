package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"condafs/control"
)

// plainCache fills a plain package directory by one client alone.
func plainCache(t *testing.T, s *server, specs string) string {
	t.Helper()
	dir := testDir(t)
	c := conda(t, s, filepath.Join(dir, "pkgs"), filepath.Join(dir, "env"), specs)
	atOnce(t, c)
	mustBeRight(t, c)
	return filepath.Join(dir, "pkgs")
}

// fingerprint lists a tree with modes, sizes and times, to see whether anything has changed in it.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	out, err := exec.Command("find", dir, "-printf", "%P %y %m %s %T@ %l\n").Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestImport takes an existing cache over. Clients need to download nothing afterwards; what is bad in the cache is
// left out and named; the cache itself is not touched; a second import has nothing to do.
func TestImport(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	cache := plainCache(t, s, "world")
	spoil(t, cache, "app01-", "lib/python3.12/site-packages/app01/m5.py")
	spoil(t, cache, "pure05-", "info/paths.json")
	truncate(t, cache, "lib07-", ".conda")
	before := fingerprint(t, cache)

	r := query[control.ImportReport](m, "import", cache)
	for _, bad := range []string{"app01-", "pure05-", "lib07-"} {
		found := false
		for _, rejected := range r.Rejected {
			found = found || strings.Contains(rejected.Path, bad) && rejected.Why != ""
		}
		if !found {
			t.Errorf("import did not reject %s…: %+v", bad, r.Rejected)
		}
	}
	if len(r.Rejected) > 4 { // of lib07 perhaps the archive and the directory
		t.Errorf("import rejected too much: %+v", r.Rejected)
	}
	if after := fingerprint(t, cache); after != before {
		t.Error("import changed its source")
	}
	m.headMustHold("none")
	again := query[control.ImportReport](m, "import", cache)
	if len(again.Imported) > 0 || again.Present < len(r.Imported) {
		t.Errorf("a second import took %d units anew, and found %d of %d", len(again.Imported), again.Present, len(r.Imported))
	}

	s.reset()
	clients := several(4, func(i int) *client { return conda(t, s, m.pkgs(), env("warm", i), "app00") })
	atOnce(t, clients...)
	mustBeRight(t, clients...)
	for fn := range s.stats().Archives {
		if !strings.HasPrefix(fn, "app01-") && !strings.HasPrefix(fn, "pure05-") && !strings.HasPrefix(fn, "lib07-") {
			t.Errorf("%s was downloaded although it had been imported", fn)
		}
	}
	m.mustBeIntact()
}

// one returns the only path in dir that starts so and ends so.
func one(t *testing.T, dir, prefix, suffix string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, prefix+"*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range found {
		if suffix != "" || !strings.HasSuffix(f, ".conda") && !strings.HasSuffix(f, ".tar.bz2") {
			out = append(out, f)
		}
	}
	if len(out) != 1 {
		t.Fatalf("%s*%s: %v", prefix, suffix, out)
	}
	return out[0]
}

// spoil changes one byte of a file in an extracted package, not through its hard links.
func spoil(t *testing.T, cache, pkg, file string) {
	t.Helper()
	path := filepath.Join(one(t, cache, pkg, ""), file)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, cache, pkg, ext string) {
	t.Helper()
	path := one(t, cache, pkg, ext)
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, st.Size()/2); err != nil {
		t.Fatal(err)
	}
}

// TestExport writes the head to a plain directory that any conda can use without condafs.
func TestExport(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	c := conda(t, s, m.pkgs(), env("first", 0), app)
	atOnce(t, c)
	mustBeRight(t, c)
	m.settle()
	out := filepath.Join(testDir(t), "exported")
	r := query[control.ExportReport](m, "export", out)
	if len(r.Rejected) > 0 {
		t.Errorf("export rejected %+v", r.Rejected)
	}
	if j := judge(t, app, "--cache", out); !j.OK {
		t.Errorf("what was exported is not right: %+v", j)
	}
	s.reset()
	plain := conda(t, s, out, env("plain", 0), app)
	atOnce(t, plain)
	mustBeRight(t, plain)
	if n := s.stats().ArchiveRequests; n > 0 {
		t.Errorf("%d archives were downloaded although they had been exported", n)
	}
	m.mustBeIntact()
}

// TestGarbageCollection frees what `conda clean` removed, and nothing that a live session sees.
func TestGarbageCollection(t *testing.T) {
	t.Parallel()
	s, env, m := serve(t), envs(t), newMount(t)
	c := conda(t, s, m.pkgs(), env("first", 0), app)
	atOnce(t, c)
	mustBeRight(t, c)
	m.settle()
	reader := pythonClient(t, "a reader")
	reader.cmd.Path, reader.cmd.Args = "/bin/sh", []string{"sh", "-c", `cd "$0" && echo mine > mine.txt; read line; exec tar cf - --exclude=mine.txt . | wc -c`, m.pkgs()}
	in, err := reader.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.start(t)
	m.await("the reader to have a session", func() bool { return len(query[[]control.Session](m, "sessions")) == 1 })
	clean := condaClean(t, m.pkgs(), "-a")
	atOnce(t, clean)
	mustSucceed(t, clean)
	m.await("the cleaning to be committed", func() bool { return m.status().Packages == 0 })
	m.condafs("gc")
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	reader.wait(t)
	if reader.err != nil || reader.stderr.Len() > 0 {
		t.Errorf("the reader lost its packages: %v: %s", reader.err, reader.stderr.String())
	}
	m.settle()
	r := query[control.GCReport](m, "gc")
	if r.Blobs == 0 {
		t.Errorf("nothing was freed after the last reader had ended: %+v, %+v", r, m.status())
	}
	m.mustBeIntact()
}
