package integration

import (
	"bytes"
	"strings"
	"testing"

	"condafs/control"
)

// What nobody uses goes, and nobody loses what he has: an environment its links, a session its view.
func TestSpace(t *testing.T) {
	s, env, m := serve(t), envs(t), newMount(t)
	used := conda(t, s, m.pkgs(), env("space", 0), "lib00").under(m)
	idle := conda(t, s, m.pkgs(), env("space", 1), "lib01", "--download-only").under(m)
	for _, c := range []*client{used, idle} {
		atOnce(t, c)
		mustSucceed(t, c)
	}
	m.settle()
	before := m.packages()
	name := ""
	for n := range before {
		if strings.HasPrefix(n, "pkgs/lib01-") {
			name = strings.TrimPrefix(n, "pkgs/")
		}
	}
	// A session that has it in its view.
	reader := m.commandFor("run", "--no-shelf", "--", "sh", "-ec", `echo ready; read go; cat "$CONDAFS_MOUNT/pkgs/`+name+`/info/index.json"`)
	in, err := reader.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := &lockedBuffer{}
	var complaint bytes.Buffer
	reader.Stdout, reader.Stderr = out, &complaint
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	m.await("the session to begin", func() bool { return out.String() == "ready\n" })

	dry := query[control.GCReport](m, "gc", "--max-size", "1", "--dry-run")
	if len(dry.Removed) != 1 || !strings.HasSuffix(dry.Removed[0].Path, name) || dry.Linked != 1 || dry.Over == 0 || dry.RemovedBytes == 0 {
		t.Errorf("a dry run says %+v", dry)
	}
	if now := m.packages(); len(now) != len(before) {
		t.Errorf("a dry run leaves %v", now)
	}
	done := query[control.GCReport](m, "gc", "--max-size", "1")
	now := m.packages()
	if _, there := now["pkgs/"+name]; there || len(done.Removed) != 1 || len(now) != len(before)-1 {
		t.Errorf("gc removed %+v, and there stay %v", done.Removed, now)
	}
	// Its space is awaited, and no other package has to go for it.
	if again := query[control.GCReport](m, "gc", "--max-size", "1", "--dry-run"); again.AwaitedBytes == 0 {
		t.Errorf("nothing is awaited: %+v", again)
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	if err := reader.Wait(); err != nil || !strings.Contains(out.String(), `"name": "lib01"`) {
		t.Errorf("the session has lost it: %v %s %s", err, out.String(), complaint.String())
	}
	m.settle()
	if r := query[control.GCReport](m, "gc", "--max-size", "1"); r.AwaitedBytes != 0 || r.Blobs == 0 {
		t.Errorf("its space is not free after the session: %+v", r)
	}
	mustBeRight(t, used)
	m.mustBeIntact()
	failing(t, 2, []string{"--max-age", "2d at least"}, "gc", "--max-age", "1h")
}
