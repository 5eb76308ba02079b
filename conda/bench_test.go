package conda

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"condafs/conda/condatest"
	"condafs/hashing"
)

// A package of 2,000 files and 40 MB, half as large when packed.
func benchPackage() condatest.Package {
	p := condatest.Package{Name: "demo", Version: "1.0", Build: "h1_0"}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		b := make([]byte, 20_000)
		for j := range b {
			b[j] = "0123456789abcdef"[rng.IntN(16)]
		}
		p.Files = append(p.Files, condatest.File{Path: fmt.Sprintf("lib/dir%d/file%d", i%50, i), Body: string(b)})
	}
	return p
}

func BenchmarkVerifyPackage(b *testing.B) {
	p := benchPackage()
	for _, ext := range []string{".conda", ".tar.bz2"} {
		s, archive := installed(p, ext)
		sums, err := hashing.Reader(bytes.NewReader(archive), hashing.SHA256|hashing.MD5)
		if err != nil {
			b.Fatal(err)
		}
		a := &ArchiveEvidence{R: bytes.NewReader(archive), Size: int64(len(archive)), Fn: sampleDist + ext, Sums: sums}
		for name, e := range map[string]*ArchiveEvidence{"archive" + ext: a, "list" + ext: nil} {
			b.Run(name, func(b *testing.B) {
				b.SetBytes(40_000_000)
				for b.Loop() {
					if _, err := VerifyPackage(b.Context(), sampleDist, s, e, Limits{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
