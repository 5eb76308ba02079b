package integration

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"condafs/conda/condatest"
	"condafs/control"
)

// by runs a command of condafs as a user, and returns all that it printed.
func (m *mount) by(uid int, args ...string) string {
	m.t.Helper()
	cmd := m.commandFor(args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.t.Errorf("condafs %s as uid %d: %v: %s", strings.Join(args, " "), uid, err, out)
	}
	return string(out)
}

// TestCommandLinesStayTheirUsers: what a user's commands were is shown to that user and to the owner, and to nobody else;
// and a password in one is not even kept. What a client writes addresses into is given to its user alone.
func TestCommandLinesStayTheirUsers(t *testing.T) {
	t.Parallel()
	needRoot(t)
	needBinary(t)
	m := newMount(t, "--allow-other")
	const secret, token = "hunter2-password", "tk-0123-token"
	const own = "correct-horse" // in files that only their user is given
	const others = "private-channel"
	before := query[[]control.Commit](m, "log")
	m.by(otherUID, "run", "--label", "a-label", "--", "sh", "-c", `cd "$CONDAFS_MOUNT/pkgs" && mkdir -p cache && echo https://me:`+own+`@example.invalid/x >> urls.txt && echo '{"`+own+`": 1}' > cache/abcd1234.json`, "https://me:"+secret+"@example.invalid/t/"+token+"/"+others)
	m.settle()
	if log := query[[]control.Commit](m, "log"); len(log) <= len(before) {
		t.Fatalf("nothing was committed: %+v", log)
	}
	for _, args := range [][]string{{"log"}, {"log", "--json"}, {"sessions", "--json"}, {"status", "--json"}, {"ls", "--json"}} {
		for _, uid := range []int{0, otherUID, thirdUID} {
			out := m.by(uid, args...)
			if strings.Contains(out, secret) || strings.Contains(out, token) {
				t.Errorf("%v shows uid %d the password: %s", args, uid, out)
			}
			its := args[0] == "log" && uid != thirdUID
			if shown := strings.Contains(out, others) && strings.Contains(out, "a-label"); shown != its {
				t.Errorf("%v shows uid %d the command: %v: %s", args, uid, shown, out)
			}
		}
	}
	for _, uid := range []int{otherUID, thirdUID} {
		c := plainClient("a reader", uid, "/bin/sh", []string{"sh", "-c", `cat "$0"/urls.txt "$0"/cache/*.json 2>&1; ls -R "$0"`, m.pkgs()})
		atOnce(t, c)
		if its := strings.Count(c.stdout.String(), own) == 2; c.err != nil || its != (uid == otherUID) || !its && strings.Contains(c.stdout.String(), own) {
			t.Errorf("uid %d is given %s%s: %v", uid, c.stdout.String(), c.stderr.String(), c.err)
		}
	}
	m.umount()
	if err := filepath.WalkDir(m.store, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		if bytes.Contains(b, []byte(secret)) || bytes.Contains(b, []byte(token)) {
			t.Errorf("the password is in %s", p)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if log := m.log.String(); strings.Contains(log, secret) || strings.Contains(log, token) {
		t.Errorf("the password is in the log:\n%s", tail(log))
	}
}

// extract unpacks an archive with all that it says of modes, tells what became of these, and makes the package complete.
const extract = `
import os, shutil, sys, tarfile
archive, record, pkgs, name = sys.argv[1:]
os.chdir(pkgs)
shutil.copyfile(archive, name + ".tar.bz2")
tarfile.TarFile.extraction_filter = staticmethod(lambda member, path: member)
with tarfile.open(name + ".tar.bz2") as t:
    t.extractall(name)
shutil.copyfile(record, name + "/info/repodata_record.json")
for f in ("bin/user", "bin/group", "bin/both"):
    print(f, "%o" % (os.stat(name + "/" + f).st_mode & 0o7777))
`

// TestSetIDArchive: a package whose programs have set-id bits, made by one user and given to all, runs with nobody else's
// rights: not from the mount, from the shelf, or from an export, and nothing in the store has such a bit.
func TestSetIDArchive(t *testing.T) {
	t.Parallel()
	needRoot(t)
	program, err := exec.LookPath("id")
	if err != nil {
		t.Skip(err)
	}
	body, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	m := newMount(t, "--allow-other", "--share=all")
	p := condatest.Package{Name: "setid", Version: "1.0", Build: "0", Files: []condatest.File{
		{Path: "bin/user", Body: string(body), Exec: true, Bits: 0o4000}, {Path: "bin/group", Body: string(body), Exec: true, Bits: 0o2000},
		{Path: "bin/both", Body: string(body) + "\n", Exec: true, Bits: 0o6000},
	}}
	programs := []string{"bin/user", "bin/group", "bin/both"}
	dir := testDir(t)
	archive, record := filepath.Join(dir, "archive"), filepath.Join(dir, "record")
	b := p.TarBz2()
	write(t, archive, b)
	write(t, record, []byte(p.Record(p.Dist()+".tar.bz2", b)))
	c := plainClient("a malicious user", otherUID, "/usr/bin/python3", []string{"python3", "-c", extract, archive, record, m.pkgs(), p.Dist()})
	atOnce(t, c)
	if c.err != nil || strings.Count(c.stdout.String(), " 775\n") != len(programs) {
		t.Fatalf("%v: %s%s", c.err, c.stdout.String(), c.stderr.String())
	}
	m.settle()
	if got := m.packages()["pkgs/"+p.Dist()]; !got.Shared || got.Trust != "verified" || got.Owner != otherUID {
		t.Fatalf("it is not given to others, and this test proves nothing: %+v", got)
	}
	export := filepath.Join(dir, "export")
	m.condafs("export", export)
	shelved := ""
	m.await("the shelf", func() bool {
		if sh := m.status().Shelf; sh != nil && sh.Packages > 0 {
			shelved = sh.Path
		}
		return shelved != ""
	})
	for where, pkgs := range map[string]string{"the mount": m.pkgs(), "the shelf": shelved, "an export": export} {
		for _, f := range programs {
			at := filepath.Join(pkgs, p.Dist(), f)
			fi, err := os.Stat(at)
			if err != nil || fi.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
				t.Errorf("%s: %s: %v, %v", where, f, fi, err)
				continue
			}
			for flag, want := range map[string]string{"-u": "54322\n", "-g": "54322\n"} {
				c := plainClient(f, thirdUID, at, []string{at, flag})
				atOnce(t, c)
				if c.err != nil || c.stdout.String() != want {
					t.Errorf("%s: %s %s: %v: %s%s", where, f, flag, c.err, c.stdout.String(), c.stderr.String())
				}
			}
		}
	}
	m.umount()
	m.storeHasNoBits()
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}
