package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/control"
	"condafs/doctor"
)

func TestDoctor(t *testing.T) {
	h := mounted(t)
	t.Setenv("CONDA_PKGS_DIRS", h.mount+"/pkgs")
	t.Setenv("RATTLER_CACHE_DIR", h.mount+"/rattler")
	if out := h.must("doctor", "--mount", h.mount); !strings.Contains(out, "mount "+h.mount) || strings.Contains(out, "\x1b") || strings.Contains(out, "not on the mount") {
		t.Errorf("%s", out)
	}
	info, err := control.ReadInfo(h.mount)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(info.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the daemon dies", func() bool { _, err := control.ReadInfo(h.mount); return errors.Is(err, control.ErrDead) })
	if code, out, msg := h.try("doctor", "--mount", h.mount); code != 1 || !strings.Contains(out, "Transport endpoint is not connected") || !strings.Contains(out, "→ condafs mount "+h.mount) || msg != "" {
		t.Errorf("%d %s %s", code, out, msg)
	}
	var d Diagnosis
	h.json(&d, "doctor", "--mount", h.mount, "--fix") // nobody else's
	if len(d.Fixed) == 0 || doctor.Worst(d.Findings) == doctor.Wrong {
		t.Errorf("%+v", d)
	}
	if _, err := control.ReadInfo(h.mount); errors.Is(err, control.ErrDead) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestColours(t *testing.T) {
	d := &Diagnosis{Findings: []doctor.Finding{{Check: "a", State: doctor.Wrong, What: "b\x1b[2J", Mend: "c"}}, Fixed: []string{"/m"}}
	for colour, want := range map[bool]string{
		false: "taken away: the dead mount at /m\nwrong    a: b\\x1b[2J\n         → c\n",
		true:  "taken away: the dead mount at /m\n\x1b[31mwrong  \x1b[0m  a: b\\x1b[2J\n         → c\n",
	} {
		var b bytes.Buffer
		if err := d.print(&b, colour); err != nil || b.String() != want {
			t.Errorf("%v: %q %v", colour, b.String(), err)
		}
	}
	if coloured(&bytes.Buffer{}, func(string) string { return "" }) {
		t.Error("a buffer is no terminal")
	}
}
