package conda

import (
	"strings"
	"testing"
)

func TestClassify(t *testing.T) {
	const hash64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	tests := []struct {
		path string
		dir  bool
		kind UnitKind
		key  string
	}{
		{"", true, Dir, ""},
		{"pkgs", true, Dir, "pkgs"},
		{"rattler/pkgs", true, Dir, "rattler/pkgs"},
		{"pkgs/cache", true, Dir, "pkgs/cache"},

		{"pkgs/numpy-1.26.4-py312_0", true, Package, "pkgs/numpy-1.26.4-py312_0"},
		{"pkgs/numpy-1.26.4-py312_0/info/index.json", false, Package, "pkgs/numpy-1.26.4-py312_0"},
		{"pkgs/node-20-0/share/yarn.lock", false, Package, "pkgs/node-20-0"},
		{"pkgs/node-20-0/test/data.partial", false, Package, "pkgs/node-20-0"},
		{"pkgs/node-20-0/pkgs/cache/ab.json", false, Package, "pkgs/node-20-0"},
		{"pkgs/_libgcc_mutex-0.1-main", true, Package, "pkgs/_libgcc_mutex-0.1-main"},
		{"pkgs/x264-1!164.3095-h166bdaf_2", true, Package, "pkgs/x264-1!164.3095-h166bdaf_2"},
		{"pkgs/numpy-1.26.4-py312_0.conda", false, Archive, "pkgs/numpy-1.26.4-py312_0.conda"},
		{"pkgs/numpy-1.26.4-py312_0.tar.bz2", false, Archive, "pkgs/numpy-1.26.4-py312_0.tar.bz2"},
		{"pkgs/numpy-1.26.4-py312_0.conda.partial", false, None, "pkgs/numpy-1.26.4-py312_0.conda.partial"},
		{"pkgs/numpy-1.26.4-py312_0.conda.c~", false, None, "pkgs/numpy-1.26.4-py312_0.conda.c~"},
		{"pkgs/numpy-1.26.4-py312_0.c~", true, None, "pkgs/numpy-1.26.4-py312_0.c~"},
		{"pkgs/numpy-1.26.4-py312_0.c~/info/index.json", false, None, "pkgs/numpy-1.26.4-py312_0.c~"},
		{"pkgs/numpy-1.26.4-py312_0.tar.bz2.lock", false, None, "pkgs/numpy-1.26.4-py312_0.tar.bz2.lock"},
		{"pkgs/pkgs.lock", false, None, "pkgs/pkgs.lock"},
		{"pkgs/tmpab1_x9zz/x", false, None, "pkgs/tmpab1_x9zz"},
		{"pkgs/.empty", true, None, "pkgs/.empty"},
		{"pkgs/a-1-0.conda_trash_1", true, None, "pkgs/a-1-0.conda_trash_1"},
		{"pkgs/urls.txt", false, URLs, "pkgs/urls.txt"},
		{"pkgs/urls", false, URLs, "pkgs/urls"},
		{"pkgs/notes.txt", false, Opaque, "pkgs/notes.txt"},
		{"pkgs/foo.conda", false, Opaque, "pkgs/foo.conda"},
		{"pkgs/a-1-0", false, Opaque, "pkgs/a-1-0"}, // a file or symlink of that name is no package

		{"pkgs/cache/497deca9.json", false, Repodata, "pkgs/cache/497deca9"},
		{"pkgs/cache/497deca9.info.json", false, Repodata, "pkgs/cache/497deca9"},
		{"pkgs/cache/497deca9.state.json", false, Repodata, "pkgs/cache/497deca9"},
		{"pkgs/cache/497deca9.solv", false, Repodata, "pkgs/cache/497deca9"},
		{"pkgs/cache/497deca9.msgpack.zst", false, Repodata, "pkgs/cache/497deca9"},
		{"pkgs/cache/497deca91.json", false, Repodata, "pkgs/cache/497deca91"},
		{"pkgs/cache/497deca9.1f2e.tmp", false, None, "pkgs/cache/497deca9.1f2e.tmp"},
		{"pkgs/cache/497deca9.json.lock", false, None, "pkgs/cache/497deca9.json.lock"},
		{"pkgs/cache/cache.lock", false, None, "pkgs/cache/cache.lock"},
		{"pkgs/cache/mambafAb3dEf6h9J", false, None, "pkgs/cache/mambafAb3dEf6h9J"},
		{"pkgs/cache/shards/" + hash64 + ".msgpack.zst", false, Repodata, "pkgs/cache/shards/" + hash64},
		{"pkgs/cache/repodata_shards.db", false, Repodata, "pkgs/cache/repodata_shards.db"},
		{"pkgs/cache/repodata_shards.db-wal", false, Repodata, "pkgs/cache/repodata_shards.db"},
		{"pkgs/cache/.json", false, Opaque, "pkgs/cache/.json"},
		{"pkgs/cache/readme", false, Opaque, "pkgs/cache/readme"},

		{"pkgs/https/conda.anaconda.org/conda-forge", true, Dir, "pkgs/https/conda.anaconda.org/conda-forge"},
		{"pkgs/https/h.org/my-own-channel/noarch", true, Dir, "pkgs/https/h.org/my-own-channel/noarch"},
		{"pkgs/http/127.0.0.1_80/linux-64/a-1-0", true, Package, "pkgs/http/127.0.0.1_80/linux-64/a-1-0"},
		{"pkgs/http/127.0.0.1_80/linux-64/a-1-0.conda", false, Archive, "pkgs/http/127.0.0.1_80/linux-64/a-1-0.conda"},
		{"pkgs/http/127.0.0.1_80/linux-64/urls.txt", false, URLs, "pkgs/http/127.0.0.1_80/linux-64/urls.txt"},

		{"rattler/pkgs/a-1-0", true, RattlerPackage, "rattler/pkgs/a-1-0"},
		{"rattler/pkgs/a-1-0/lib/x.lock", false, RattlerPackage, "rattler/pkgs/a-1-0"},
		{"rattler/pkgs/a-1-0.lock", false, RattlerPackage, "rattler/pkgs/a-1-0"},
		{"rattler/pkgs/a-1-0-" + hash64, true, RattlerPackage, "rattler/pkgs/a-1-0-" + hash64},
		{"rattler/pkgs/.cache.lock", false, None, "rattler/pkgs/.cache.lock"},
		{"rattler/pkgs/.a-1-0x9ZkQ2", true, None, "rattler/pkgs/.a-1-0x9ZkQ2"},
		{"rattler/pkgs/.a-1-0x9ZkQ2/info/index.json", false, None, "rattler/pkgs/.a-1-0x9ZkQ2"},
		{"rattler/repodata/8f2c.json", false, Repodata, "rattler/repodata/8f2c"},
		{"rattler/repodata/8f2c.info.json", false, Repodata, "rattler/repodata/8f2c"},
		{"rattler/repodata/8f2c.lock", false, None, "rattler/repodata/8f2c.lock"},
		{"rattler/repodata/.tmpx9ZkQ2", false, None, "rattler/repodata/.tmpx9ZkQ2"},
		{"rattler/repodata/8f2c.shards-cache-v1", false, Repodata, "rattler/repodata/8f2c"},
		{"rattler/repodata/shards-v1/" + hash64 + ".msgpack", false, Repodata, "rattler/repodata/shards-v1/" + hash64},
		{"rattler/run-exports/a-1-0-" + hash64 + ".conda", false, Opaque, "rattler/run-exports/a-1-0-" + hash64 + ".conda"},
		{"rattler/exec/ab12/bin/python", false, None, "rattler/exec"},
		{"rattler/cached-envs-v0", true, None, "rattler/cached-envs-v0"},
		{"rattler/conda-pypi-mapping/x/index", false, Opaque, "rattler/conda-pypi-mapping/x/index"},
	}
	for _, tt := range tests {
		u := Classify(tt.path, tt.dir)
		if u.Kind != tt.kind || u.Key != tt.key {
			t.Errorf("Classify(%q, %v) = %v %q, want %v %q", tt.path, tt.dir, u.Kind, u.Key, tt.kind, tt.key)
		}
	}
}

func TestUnitMembers(t *testing.T) {
	u := Classify("pkgs/cache/497deca9.info.json", false)
	for _, m := range u.Members() {
		if got := Classify(m, false); got.Key != u.Key || got.Kind != Repodata {
			t.Errorf("member %q is of %v %q", m, got.Kind, got.Key)
		}
	}
	u = Classify("rattler/pkgs/a-1-0.lock", false)
	if got := strings.Join(u.Members(), " "); got != "rattler/pkgs/a-1-0 rattler/pkgs/a-1-0.lock" {
		t.Errorf("members are %q", got)
	}
}

func TestIsLock(t *testing.T) {
	for p, want := range map[string]bool{
		"rattler/pkgs/.cache.lock": true, "rattler/pkgs/a-1-0.lock": false, "pkgs/pkgs.lock": true,
		"pkgs/a-1-0/yarn.lock": false, "pkgs/cache/x.json.lock": true, "rattler/repodata/ab.lock": true,
		"pkgs/a-1-0.conda.partial": false, "x.pid": true,
	} {
		if IsLock(p) != want {
			t.Errorf("IsLock(%q) = %v", p, !want)
		}
	}
}

func TestSplitDist(t *testing.T) {
	for _, tt := range []struct{ dist, name, version, build string }{
		{"numpy-1.26.4-py312_0", "numpy", "1.26.4", "py312_0"},
		{"ca-certificates-2024.2.2-hbcca054_0", "ca-certificates", "2024.2.2", "hbcca054_0"},
		{"a-b", "", "", ""}, {"a--b", "", "", ""}, {"-1-0", "", "", ""}, {"a-1-", "", "", ""},
		{"a-1/-0", "", "", ""}, {".a-1-0", "", "", ""}, {"a-1-0\n", "", "", ""},
		{strings.Repeat("a", 252) + "-1-0", "", "", ""},
	} {
		name, version, build, ok := SplitDist(tt.dist)
		if name != tt.name || version != tt.version || build != tt.build || ok != (tt.name != "") {
			t.Errorf("SplitDist(%q) = %q %q %q %v", tt.dist, name, version, build, ok)
		}
	}
}

// Every path belongs to one unit, and the members that the unit names belong
// to the same one.
func FuzzClassify(f *testing.F) {
	for _, s := range []string{
		"pkgs/a-1-0/info/x", "pkgs/cache/ab.info.json", "rattler/pkgs/a-1-0.lock", "pkgs/cache/x.db-wal",
		"pkgs/http/h/noarch/a-1-0.conda", "//", "pkgs//a-1-0", "pkgs/cache/.db", "rattler/repodata/.json.json",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, p string, dir bool) {
		u := Classify(p, dir)
		IsLock(p)
		switch u.Kind {
		case Repodata, RattlerPackage:
			for _, m := range u.Sidecars {
				if got := Classify(m, false); got.Key != u.Key || got.Kind != u.Kind {
					t.Errorf("%q is of %v %q, its sidecar %q of %v %q", p, u.Kind, u.Key, m, got.Kind, got.Key)
				}
			}
		}
		if u.Kind == Package && p != u.Root {
			if got := Classify(u.Root, true); got.Key != u.Key {
				t.Errorf("%q is of %q, its root of %q", p, u.Key, got.Key)
			}
			if !strings.HasPrefix(p, u.Root+"/") {
				t.Errorf("%q is not below %q", p, u.Root)
			}
		}
	})
}

func TestRattlerTarget(t *testing.T) {
	for p, want := range map[string]string{
		"rattler/pkgs/.tool-1.0-0aB3dE5":                                  "rattler/pkgs/tool-1.0-0",
		"rattler/pkgs/.tool-1.0-0-" + strings.Repeat("0a", 32) + "aB3dE5": "rattler/pkgs/tool-1.0-0-" + strings.Repeat("0a", 32),
		"rattler/pkgs/tool-1.0-0":                                         "",
		"rattler/pkgs/.tool-1.0-0":                                        "",
		"rattler/pkgs/.tool-1.0-0aB3d.5":                                  "",
		"rattler/pkgs/.toolaB3dE5":                                        "",
		"rattler/pkgs/a/.tool-1.0-0aB3dE5":                                "",
		"pkgs/.tool-1.0-0aB3dE5":                                          "",
		".tool-1.0-0aB3dE5":                                               "",
		"":                                                                "",
	} {
		if got, ok := RattlerTarget(p); got != want || ok != (want != "") {
			t.Errorf("%s: %q, %t", p, got, ok)
		}
	}
}
