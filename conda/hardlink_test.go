package conda

import (
	"archive/tar"

	"condafs/conda/condatest"
)

// hardlinked is the package with a file "a" and a hard link "b" to it.
func hardlinked(p condatest.Package) []byte {
	bodies := map[string]string{"a": "same"}
	var hs []tar.Header
	for _, f := range p.All() {
		hs = append(hs, tar.Header{Name: f.Path, Typeflag: tar.TypeReg, Mode: 0o644})
		bodies[f.Path] = f.Body
	}
	hs = append(hs,
		tar.Header{Name: "a", Typeflag: tar.TypeReg, Mode: 0o644},
		tar.Header{Name: "b", Typeflag: tar.TypeLink, Linkname: "./a", Mode: 0o644})
	return condatest.Tar(hs, bodies)
}
