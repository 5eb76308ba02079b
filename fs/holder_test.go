package fs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// holder is a Python program that holds files, locks and more on the mount; see testdata/holder.py.
type holder struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startHolder(t testing.TB, dir string) *holder {
	t.Helper()
	h := &holder{cmd: exec.Command("python3", filepath.Join("testdata", "holder.py"), dir)}
	h.cmd.Stderr = os.Stderr
	var err error
	h.in, err = h.cmd.StdinPipe()
	must(t, err)
	out, err := h.cmd.StdoutPipe()
	must(t, err)
	h.out = bufio.NewScanner(out)
	must(t, h.cmd.Start())
	h.hear(t, "ready")
	return h
}

func (h *holder) hear(t testing.TB, want string) {
	t.Helper()
	if !h.out.Scan() || h.out.Text() != want {
		t.Fatalf("the holder says %q, want %q (%v)", h.out.Text(), want, h.cmd.Wait())
	}
}

// check has the program use all that it holds.
func (h *holder) check(t testing.TB) {
	t.Helper()
	_, err := fmt.Fprintln(h.in, "check")
	must(t, err)
	h.hear(t, "ok")
}

func (h *holder) end(t testing.TB) {
	t.Helper()
	h.check(t)
	_, err := fmt.Fprintln(h.in, "end")
	must(t, err)
	h.hear(t, "ended")
	must(t, h.cmd.Wait())
}
