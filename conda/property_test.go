package conda

import (
	"maps"
	"slices"
	"testing"

	"condafs/conda/condatest"
	"condafs/fault"

	"pgregory.net/rapid"
)

// Whatever is done to an extracted package, it is never verified unless it is
// still what the archive holds.
func TestVerifyFindsEveryChange(t *testing.T) {
	_, newArchive := installed(sample, ".conda")
	_, oldArchive := installed(oldSample(), ".tar.bz2")
	conda, bz2 := evidence(t, sampleDist+".conda", newArchive), evidence(t, sampleDist+".tar.bz2", oldArchive)
	rapid.Check(t, func(t *rapid.T) {
		pkg, ext, a := sample, ".conda", conda
		if rapid.Bool().Draw(t, "old") {
			pkg, ext, a = oldSample(), ".tar.bz2", bz2
		}
		s, _ := installed(pkg, ext)
		change(t, s)
		v, err := VerifyPackage(t.Context(), sampleDist, s, a, Limits{})
		if err == nil && v.Trust == TrustVerified {
			t.Errorf("verified after the change")
		}
		if err != nil && !fault.Is(err, fault.Corrupt) {
			t.Errorf("kind %v: %v", fault.KindOf(err), err)
		}
	})
}

// change damages one object of a package.
func change(t *rapid.T, s *memSet) {
	// A record can be spelt in many ways that mean the same, so it is left alone.
	paths := slices.Sorted(maps.Keys(s.files))
	paths = slices.DeleteFunc(paths, func(p string) bool { return p == CompletionMarker })
	p := rapid.SampledFrom(paths).Draw(t, "path")
	f := s.files[p]
	how := rapid.SampledFrom([]string{"remove", "rename", "replace", "mode", "byte", "more", "truncate", "link"}).Draw(t, "how")
	switch {
	case how == "remove":
		delete(s.files, p)
	case how == "rename":
		s.files[p+".new"] = f
		delete(s.files, p)
	case how == "replace" && f.Kind == RegularFile:
		s.files[p] = &memFile{FileInfo: FileInfo{Kind: SymlinkFile, Link: "other"}}
	case how == "replace":
		s.put(p, "no link", 0o644)
	case how == "mode" && f.Kind == RegularFile:
		f.Mode ^= ownerExec
	case how == "byte" && f.Kind == RegularFile && len(f.body) > 0:
		b := []byte(f.body)
		b[rapid.IntRange(0, len(b)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		s.put(p, string(b), f.Mode)
	case how == "truncate" && f.Kind == RegularFile && len(f.body) > 0:
		s.put(p, f.body[:rapid.IntRange(0, len(f.body)-1).Draw(t, "length")], f.Mode)
	case how == "link" && f.Kind == SymlinkFile:
		f.Link += rapid.StringN(1, 20, -1).Draw(t, "target")
	default:
		s.put(p+rapid.StringMatching(`[a-z]{1,5}`).Draw(t, "name"), rapid.String().Draw(t, "body"), 0o644)
	}
}

// Any package that is made and extracted is verified.
func TestVerifyAnyPackage(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-zé_.]{1,8}`), 0, 20, rapid.ID).Draw(rt, "names")
		names = slices.DeleteFunc(names, func(n string) bool { return n == "." || n == ".." || n == "info" })
		p := condatest.Package{Name: "demo", Version: "1.0", Build: "h1_0", Old: rapid.Bool().Draw(rt, "old")}
		for i, n := range names {
			f := condatest.File{Path: n + "/" + n, Body: rapid.String().Draw(rt, "body"), Exec: rapid.Bool().Draw(rt, "exec")}
			if i > 0 && rapid.IntRange(0, 4).Draw(rt, "link") == 0 {
				f = condatest.File{Path: f.Path, Link: "../" + names[i-1] + "/" + names[i-1]}
			}
			p.Files = append(p.Files, f)
		}
		ext := rapid.SampledFrom([]string{".conda", ".tar.bz2"}).Draw(rt, "format")
		s, archive := installed(p, ext)
		v, err := VerifyPackage(rt.Context(), sampleDist, s, evidence(t, sampleDist+ext, archive), Limits{})
		if err != nil || v.Trust != TrustVerified {
			rt.Errorf("%v because %q, %v", v.Trust, v.Why, err)
		}
	})
}
