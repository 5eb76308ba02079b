package integration

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
)

// judgement is what check.py found.
type judgement struct {
	OK                 bool     `json:"ok"`
	Environments       int      `json:"environments"`
	EnvironmentsOK     int      `json:"environments_ok"`
	EnvironmentsBroken int      `json:"environments_broken"`
	EnvironmentsAbsent int      `json:"environments_absent"`
	PackagesBroken     int      `json:"packages_broken"`
	FilesChecked       int      `json:"files_checked"`
	FilesMissing       int      `json:"files_missing"`
	FilesWrong         int      `json:"files_wrong"`
	ArchivesOK         int      `json:"archives_ok"`
	ArchivesCorrupt    int      `json:"archives_corrupt"`
	ArchivesMissing    int      `json:"archives_missing"`
	DirectoriesOK      int      `json:"directories_ok"`
	DirectoriesBroken  int      `json:"directories_broken"`
	DirectoriesMissing int      `json:"directories_missing"`
	Leftovers          int      `json:"leftovers"`
	WrongEnvironments  []string `json:"wrong_environments"`
	Details            []string `json:"details"`
}

// judge runs check.py. specs is what caches must hold, "none" if only what is there is judged.
func judge(t *testing.T, specs string, args ...string) judgement {
	t.Helper()
	p := needTools(t)
	all := append([]string{filepath.Join(p.clients, "check.py"), "--channel", p.channel, "--specs", specs}, args...)
	out, err := exec.Command(p.python, all...).Output()
	var j judgement
	if jsonErr := json.Unmarshal(out, &j); jsonErr != nil {
		t.Fatalf("check.py: %v: %q", err, out)
	}
	return j
}

// judgeClients judges the environments of clients by their bytes.
func judgeClients(t *testing.T, clients ...*client) judgement {
	t.Helper()
	var args []string
	for _, c := range clients {
		if c.prefix != "" {
			args = append(args, "--env", c.prefix+"="+c.specs)
		}
	}
	return judge(t, "none", args...)
}

// mustBeRight demands that clients succeeded and that their environments hold every byte.
func mustBeRight(t *testing.T, clients ...*client) {
	t.Helper()
	mustSucceed(t, clients...)
	if j := judgeClients(t, clients...); !j.OK {
		t.Errorf("environments are not right: %+v", j)
	}
}

// headMustHold demands that the newest snapshot holds specs with all dependencies, archives and directories, and
// nothing broken or left over.
func (m *mount) headMustHold(specs string) {
	m.t.Helper()
	if j := judge(m.t, specs, "--cache", m.head()); !j.OK || j.Leftovers > 0 {
		m.t.Errorf("the head is not right: %+v", j)
	}
}

// rattlerHeadMustHold is the same for rattler's cache.
func (m *mount) rattlerHeadMustHold(specs string) {
	m.t.Helper()
	if j := judge(m.t, specs, "--rattler-cache", filepath.Join(m.point, ".head", "rattler")); !j.OK {
		m.t.Errorf("rattler's part of the head is not right: %+v", j)
	}
}

// mustBeIntact ends a test: nothing in the head is broken, and everything in the store hashes to its name.
func (m *mount) mustBeIntact() {
	m.t.Helper()
	m.settle()
	m.headMustHold("none")
	m.rattlerHeadMustHold("none")
	m.verify()
}

// mustNotLie demands of a client that could not work in peace that it has either succeeded or said that it has not.
func mustNotLie(t *testing.T, c *client) {
	t.Helper()
	if c.complaint() == "" && !judgeClients(t, c).OK {
		t.Errorf("%s says that all went well, and its environment is not right", c.name)
	}
}
