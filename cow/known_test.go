package cow

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"strconv"
	"strings"
	"testing"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
)

// relabel changes an entry of the head, or moves it.
func (w *world) relabel(from, to string, change func(e *index.Entry)) {
	w.t.Helper()
	e := w.head(from)
	if e == nil {
		w.t.Fatalf("%s is not in the head", from)
	}
	_, err := w.store.Update(ctx, index.CommitInfo{}, func(tx *index.Tx) error {
		if err := tx.Delete(from); err != nil {
			return err
		}
		change(e)
		return tx.Put(to, *e)
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// packed returns the package with something in place of its archive that nobody can
// unpack, which the record names rightly: it is verified only by who knows it.
func (f *fixture) packed(t *testing.T, archive string) *fixture {
	t.Helper()
	g := *f
	g.files, g.links, g.archive = maps.Clone(f.files), maps.Clone(f.links), archive
	g.record = strings.NewReplacer(sha256Hex(f.archive), sha256Hex(archive), sizeField(f.archive), sizeField(archive)).Replace(f.record)
	if g.record == f.record {
		t.Fatal("the record does not tell the archive")
	}
	return &g
}

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func sizeField(archive string) string { return `"size":` + strconv.Itoa(len(archive)) }

// What was verified once is known again by the archive's hash and the files; nothing
// less will do.
func TestKnownPackage(t *testing.T) {
	const sealed = "no archive"
	const shared, root = "shared/pkgs/tool-1.0-0", "pkgs/tool-1.0-0"
	tests := []struct {
		name   string
		lender func(w *world) // makes the head other than one with the verified package
		spoil  func(g *fixture, c *client)
		known  bool
	}{
		{name: "the head's", known: true},
		{name: "one's own", lender: func(w *world) { w.relabel(shared, PrivateSpace(me)+"/"+root, func(*index.Entry) {}) }, known: true},
		{name: "another's", lender: func(w *world) { w.relabel(shared, PrivateSpace(me+1)+"/"+root, func(*index.Entry) {}) }},
		{name: "under another name", lender: func(w *world) { w.relabel(shared, "shared/pkgs/tool-1.0-1", func(*index.Entry) {}) }},
		{name: "merely consistent", lender: func(w *world) {
			w.relabel(shared, shared, func(e *index.Entry) { e.Trust = uint8(conda.TrustConsistent) })
		}},
		{name: "of another archive", lender: func(w *world) {
			w.relabel(shared, shared, func(e *index.Entry) { e.SHA256 = strings.Repeat("0", 64) })
		}},
		{name: "of an archive unknown", lender: func(w *world) { w.relabel(shared, shared, func(e *index.Entry) { e.SHA256 = "" }) }},
		{name: "another archive", spoil: func(g *fixture, _ *client) { g.archive += "." }},
		{name: "another record", spoil: func(g *fixture, _ *client) {
			g.record = strings.Replace(g.record, sha256Hex(sealed), strings.Repeat("1", 64), 1)
		}},
		{name: "a changed file", spoil: func(g *fixture, _ *client) {
			b := []byte(g.files["lib/data"])
			b[0]++
			g.files["lib/data"] = string(b)
		}},
		{name: "a changed file and list", spoil: func(g *fixture, _ *client) {
			old := sha256Hex(g.files["lib/data"])
			b := []byte(g.files["lib/data"])
			b[0]++
			g.files["lib/data"] = string(b)
			g.files["info/paths.json"] = strings.Replace(g.files["info/paths.json"], old, sha256Hex(string(b)), 1)
		}},
		{name: "one more file", spoil: func(g *fixture, _ *client) { g.files["info/more"] = "x" }},
		{name: "one more directory", spoil: func(_ *fixture, c *client) { c.mkdirs(root + "/etc") }},
		{name: "one file less", spoil: func(g *fixture, _ *client) { delete(g.files, "bin/tool") }},
		{name: "another link", spoil: func(g *fixture, _ *client) { g.links["lib/link"] = "../bin/tool" }},
		{name: "a link for a file", spoil: func(g *fixture, c *client) {
			c.mkdirs(root + "/bin")
			delete(g.files, "bin/tool")
			g.links["bin/tool"] = "../lib/data"
		}},
		{name: "another executable", spoil: func(g *fixture, c *client) {
			c.extract(g)
			c.must(c.on(root+"/lib/data", func(n *Node, _ Attr) error {
				_, err := c.v.Setattr(n, nil, SetAttr{Valid: SetMode, Mode: 0o755})
				return err
			}))
			clear(g.files)
			clear(g.links)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			f := makePackage(t, "tool-1.0-0", nil)
			g := f.packed(t, sealed)
			pid, c := w.process()
			c.install(f)
			w.exit(pid)
			w.relabel(shared, shared, func(e *index.Entry) { e.SHA256 = sha256Hex(sealed) })
			if test.lender != nil {
				test.lender(w)
			}
			// The archive of the head would tell of another one by itself.
			w.relabel(shared+".conda", "shared/elsewhere", func(*index.Entry) {})

			s, err := w.e.StartSession(StartOptions{PID: w.procs.spawn(1), UID: me, GID: me, Ephemeral: true})
			if err != nil {
				t.Fatal(err)
			}
			c = &client{t: t, s: s, v: s.View()}
			if c.exists(root) {
				c.remove(root)
			}
			if test.spoil != nil {
				test.spoil(g, c)
			}
			c.install(g)
			parts, err := s.preparePackage(ctx, root)
			switch {
			case !test.known:
				if !fault.Is(err, fault.Corrupt) && (err != nil || conda.Trust(parts[0].public.entry.Trust) == conda.TrustVerified) {
					t.Errorf("%v, %v: want it to be refused", parts, err)
				}
			case err != nil:
				t.Error(err)
			case len(parts) != 2 || conda.Trust(parts[0].public.entry.Trust) != conda.TrustVerified ||
				parts[0].public.entry.SHA256 != sha256Hex(sealed) || conda.Trust(parts[1].public.entry.Trust) != conda.TrustVerified:
				t.Errorf("%+v", parts)
			}
		})
	}
}

// A session knows again what it saw, also when somebody has deleted it since.
func TestKnownFromTheSnapshot(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.install(f)
	w.exit(pid)
	w.relabel("shared/pkgs/"+f.dist, "shared/pkgs/"+f.dist, func(e *index.Entry) { e.SHA256 = sha256Hex("no archive") })
	_, c = w.process()
	deleter, d := w.process()
	d.remove("pkgs/" + f.dist)
	w.exit(deleter)
	if w.head("shared/pkgs/"+f.dist) != nil {
		t.Fatal("it is still there")
	}
	sums, err := hashing.Reader(strings.NewReader("no archive"), hashing.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	known, err := c.s.knownAs("pkgs/"+f.dist, sums)
	if err != nil || len(known) != 1 {
		t.Errorf("%v, %v", known, err)
	}
}

// A tampered package with the right archive is refused, whoever knows the right one,
// and the head stays as it is.
func TestKnownPackageTampered(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.install(f)
	w.exit(pid)
	before := *w.head("shared/pkgs/" + f.dist)

	pid = w.procs.spawn(1)
	c = w.clientAs(pid, me+1)
	c.remove("pkgs/" + f.dist)
	bad := *f
	bad.files = maps.Clone(f.files)
	bad.files["bin/tool"] = strings.Replace(f.files["bin/tool"], "tool", "evil", 1)
	c.install(&bad)
	w.exit(pid)
	if now := w.head("shared/pkgs/" + f.dist); now == nil || *now != before {
		t.Errorf("the head has %+v", now)
	}
	if e := w.head(PrivateSpace(me+1) + "/pkgs/" + f.dist); e != nil {
		t.Errorf("published to its user: %+v", e)
	}
	q, err := w.store.Quarantined()
	if err != nil || len(q) != 1 || !strings.Contains(q[0].Reason, "bin/tool") {
		t.Errorf("quarantine: %+v, %v", q, err)
	}
}

// An archive alone is trusted as what the head has under its name, if it is that.
func TestKnownArchive(t *testing.T) {
	const sealed, at = "no archive", "pkgs/tool-1.0-0.conda"
	tests := []struct {
		name  string
		space string
		trust conda.Trust
		bytes string
		want  conda.Trust // TrustOpaque: it is refused
	}{
		{"verified", SharedSpace, conda.TrustVerified, sealed, conda.TrustVerified},
		{"consistent", PrivateSpace(me), conda.TrustConsistent, sealed, conda.TrustConsistent},
		{"opaque", PrivateSpace(me), conda.TrustOpaque, sealed, conda.TrustOpaque},
		{"another's", PrivateSpace(me + 1), conda.TrustVerified, sealed, conda.TrustOpaque},
		{"other bytes", SharedSpace, conda.TrustVerified, sealed + ".", conda.TrustOpaque},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			h := w.store.NewHold()
			defer h.Release()
			sums, err := w.store.PutBlob(h, strings.NewReader(sealed), 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err = w.store.Update(ctx, index.CommitInfo{}, func(tx *index.Tx) error {
				return tx.Put(test.space+"/"+at, index.Entry{Kind: index.KindFile, Trust: uint8(test.trust), Mode: 0o644, Size: sums.Size, Digest: sums.Blake3})
			})
			if err != nil {
				t.Fatal(err)
			}
			_, c := w.process()
			if c.exists(at) {
				c.remove(at)
			}
			c.write(at, test.bytes)
			p, err := c.s.prepareArchive(ctx, conda.Classify(at, false))
			if test.want == conda.TrustOpaque {
				if !fault.Is(err, fault.Corrupt) {
					t.Errorf("%+v, %v: want it to be refused", p, err)
				}
			} else if err != nil || conda.Trust(p.public.entry.Trust) != test.want {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
}

// A package that is known is published with the modes that its archive gave it when that was unpacked.
func TestKnownPackageKeepsItsModes(t *testing.T) {
	w := newWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	c.install(f)
	w.exit(pid)
	first := w.head(shared + f.dist)
	modes := func(d hashing.Digest) map[string]uint32 {
		t.Helper()
		tree, err := w.store.Tree(d)
		c.must(err)
		m := make(map[string]uint32)
		for p, e := range tree.All() {
			m[p] = e.Mode
		}
		return m
	}
	pid, c = w.process() // has the package in its snapshot
	c.remove("pkgs/" + f.dist)
	_, err := w.e.Commit(t.Context(), c.s.ID())
	c.must(err)
	if w.head(shared+f.dist) != nil {
		t.Fatal("it is still there")
	}
	c.extract(f)
	c.must(c.on("pkgs/"+f.dist+"/bin/tool", func(n *Node, _ Attr) error {
		_, err := c.v.Setattr(n, nil, SetAttr{Valid: SetMode, Mode: 0o444})
		return err
	}))
	c.finish(f)
	w.exit(pid)
	again := w.head(shared + f.dist)
	if again == nil || again.Trust != first.Trust || !maps.Equal(modes(first.Digest), modes(again.Digest)) {
		t.Errorf("first %v, then %v", modes(first.Digest), again)
	}
}
