package cow

import (
	"fmt"
	"math/rand/v2"
	"path"
	"testing"

	"condafs/conda"
	"condafs/conda/condatest"
)

// What it costs to check a package that is complete, 300 files and 6 MB: as the first
// one who has it, and when the head has the same.
func BenchmarkCheckPackage(b *testing.B) {
	p := condatest.Package{Name: "demo", Version: "1.0", Build: "h1_0"}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		body := make([]byte, 20_000)
		for j := range body {
			body[j] = "0123456789abcdef"[rng.IntN(16)]
		}
		p.Files = append(p.Files, condatest.File{Path: fmt.Sprintf("lib/dir%d/file%d", i%10, i), Body: string(body)})
	}
	for ext, archive := range map[string][]byte{".conda": p.Conda(), ".tar.bz2": p.TarBz2()} {
		root, fn := "pkgs/"+p.Dist(), p.Dist()+ext
		install := func(c *client) {
			c.write("pkgs/"+fn, string(archive))
			for _, f := range p.All() {
				c.mkdirs(path.Dir(root + "/" + f.Path))
				c.write(root+"/"+f.Path, f.Body)
			}
			c.write(root+"/"+conda.CompletionMarker, p.Record(fn, archive))
		}
		measure := func(b *testing.B, w *world) {
			pid := w.procs.spawn(1)
			s, err := w.e.StartSession(StartOptions{PID: pid, UID: me, GID: me, Ephemeral: true})
			if err != nil {
				b.Fatal(err)
			}
			install(&client{t: b, s: s, v: s.View()})
			b.SetBytes(300 * 20_000)
			for b.Loop() {
				parts, err := s.preparePackage(ctx, root)
				if err != nil || conda.Trust(parts[0].public.entry.Trust) != conda.TrustVerified {
					b.Fatal(parts, err)
				}
			}
		}
		b.Run("first"+ext, func(b *testing.B) { measure(b, newWorld(b)) })
		b.Run("again"+ext, func(b *testing.B) {
			w := newWorld(b)
			pid, c := w.process()
			install(c)
			w.exit(pid)
			if w.head("shared/"+root) == nil {
				b.Fatal("the head has none")
			}
			measure(b, w)
		})
	}
}
