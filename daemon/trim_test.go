package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"condafs/conda"
	"condafs/conda/condatest"
	"condafs/cow"
	"condafs/index"
	"condafs/proc"
	"condafs/transfer"
	"condafs/trim"
)

// What the daemon does by itself every ten minutes.
func TestDaemonMakesSpace(t *testing.T) {
	store, err := index.Open(filepath.Join(t.TempDir(), "store"), index.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	procs, err := proc.NewLinux()
	if err != nil {
		t.Fatal(errors.Join(err, store.Close()))
	}
	engine, err := cow.New(store, cow.Options{Procs: procs})
	if err != nil {
		t.Fatal(errors.Join(err, procs.Close(), store.Close()))
	}
	t.Cleanup(func() {
		if err := errors.Join(engine.Close(context.Background()), procs.Close(), store.Close()); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	p := condatest.Package{Name: "a", Version: "1.0", Build: "0", Files: []condatest.File{{Path: "lib/data", Body: "data"}}}
	write := func(name, body string) {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(body), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	archive := p.Conda()
	write(p.Dist()+".conda", string(archive))
	for _, f := range p.All() {
		write(filepath.Join(p.Dist(), f.Path), f.Body)
	}
	write(filepath.Join(p.Dist(), conda.CompletionMarker), p.Record(p.Dist()+".conda", archive))
	if r, err := transfer.Import(t.Context(), store, transfer.ImportOptions{Dir: dir, Spaces: transfer.Spaces{Shared: cow.SharedSpace, Private: "u0"}}); err != nil || len(r.Rejected) > 0 {
		t.Fatal(r, err)
	}
	d := &daemon{config: Config{Settings: Settings{Space: trim.Limits{MaxSize: 1 << 40}}, Logger: slog.New(slog.DiscardHandler)}, store: store, engine: engine}
	packages := func() int64 {
		t.Helper()
		st, err := store.Stats()
		if err != nil {
			t.Fatal(err)
		}
		return st.Packages
	}
	if d.makeSpace(t.Context(), d.config.Space, 0); packages() != 1 || d.figures.gc.Runs != 0 {
		t.Errorf("%d packages after %d collections, where there was room", packages(), d.figures.gc.Runs)
	}
	seen := d.makeSpace(t.Context(), trim.Limits{MaxSize: 1}, 0)
	if packages() != 0 || d.figures.gc.Runs != 2 || d.awaited() != 0 {
		t.Errorf("%d packages after %d collections, %d awaited", packages(), d.figures.gc.Runs, d.awaited())
	}
	// Nothing more can go, and nothing has changed: there is nothing to collect.
	if d.makeSpace(t.Context(), trim.Limits{MinFree: 1 << 62}, seen); d.figures.gc.Runs != 2 {
		t.Errorf("%d collections", d.figures.gc.Runs)
	}
	d.await(5)
	if d.awaited() != 0 {
		t.Error("somebody is waited for, and nobody is there")
	}
	if _, err := engine.StartSession(cow.StartOptions{PID: os.Getpid(), UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}); err != nil {
		t.Fatal(err)
	}
	d.await(5)
	if d.awaited() != 5 {
		t.Error("a session that was there before is not waited for")
	}
	// The loop ends when it is told to.
	d.keepSpace(t.Context())()
}
