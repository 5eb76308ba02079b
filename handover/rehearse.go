package handover

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"condafs/fault"
)

// rehearsalTime is how long a program may take to read an image.
const rehearsalTime = 30 * time.Second

// maxSaid bounds what is taken of what a program prints.
const maxSaid = 64 << 10

// Rehearsed is what a program says that has read an image and could go on from it.
type Rehearsed struct {
	Takes    string `json:"takes"` // rehearsalMark
	Version  string `json:"version"`
	Image    int    `json:"image"` // the version of images that it reads
	Sessions int    `json:"sessions"`
	Nodes    int    `json:"nodes"`
	Files    int    `json:"files"`
}

// rehearsalMark tells an answer from what other programs print.
const rehearsalMark = "a condafs mount"

// Answer prints the answer of a program that can go on from an image.
func (r Rehearsed) Answer(w io.Writer) error {
	r.Takes, r.Image = rehearsalMark, Version
	return json.NewEncoder(w).Encode(r)
}

// Rehearse lets a program read an image, in a process of its own, and say whether it could
// go on from it. args are those for which it does that; the image is its descriptor 3.
// What it fails for is fault.Version, whatever the program is; it ends within a bounded time.
func (p *Program) Rehearse(ctx context.Context, args []string, image *os.File) (*Rehearsed, error) {
	return p.rehearse(ctx, args, image, rehearsalTime)
}

func (p *Program) rehearse(ctx context.Context, args []string, image *os.File, patience time.Duration) (*Rehearsed, error) {
	timed, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(timed, "/proc/self/fd/4", args...)
	cmd.Args[0] = "condafs"
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{image, p.f}
	out, errs := &bounded{}, &bounded{}
	cmd.Stdout, cmd.Stderr = out, errs
	// With all that it may have started, and however they cling to the pipes.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	refuse := func(err error) (*Rehearsed, error) {
		return nil, fault.New("upgrade to", p.name, fault.Version, err).WithHint("the running daemon goes on")
	}
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil, fault.New("upgrade to", p.name, fault.Canceled, context.Cause(ctx))
	case timed.Err() != nil:
		return refuse(fmt.Errorf("it did not answer within %v", patience))
	case errors.As(err, &exit):
		if says := lastLine(errs.b.String()); says != "" {
			return refuse(fmt.Errorf("it cannot take over (%v): %s", exit, says))
		}
		return refuse(fmt.Errorf("it cannot take over: %v", exit))
	case errors.Is(err, syscall.ENOEXEC):
		return refuse(errors.New("it is no program"))
	case err != nil:
		return refuse(pathCause(err))
	}
	var r Rehearsed
	d := json.NewDecoder(bytes.NewReader(out.b.Bytes()))
	if err := d.Decode(&r); err != nil || r.Takes != rehearsalMark || r.Version == "" || d.More() {
		return refuse(errors.New("it is not condafs, or one that cannot take over"))
	}
	if r.Image != Version {
		return refuse(fmt.Errorf("it reads images of version %d, and this daemon writes version %d", r.Image, Version))
	}
	return &r, nil
}

// lastLine is the last that a program has said, which a condafs begins with its name.
func lastLine(s string) string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
	if len(lines) == 0 {
		return ""
	}
	const most = 500
	last := lines[len(lines)-1]
	return strings.TrimPrefix(strings.ToValidUTF8(last[:min(len(last), most)], "?"), "condafs: ")
}

// bounded keeps the last of what is written to it.
type bounded struct{ b bytes.Buffer }

func (w *bounded) Write(p []byte) (int, error) {
	w.b.Write(p)
	if n := w.b.Len() - maxSaid; n > 0 {
		w.b.Next(n)
	}
	return len(p), nil
}
