package daemon

import (
	"bytes"
	"fmt"
	"os/exec"

	"condafs/fault"
)

// AskCommand is the command that a program is started with to ask a mount whether it
// answers, by [fs.Ask].
const AskCommand = "ask"

// askMount has another process do that. If we did it ourselves, and hung, nobody could
// even kill us: see package fs.
func (d *daemon) askMount() error {
	cmd := ourCommand(AskCommand, d.config.MountPoint)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fault.New("ask", d.config.MountPoint, fault.Other, fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes())))
	}
	return nil
}

// ourCommand is another process of the program that runs here.
func ourCommand(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = "condafs"
	cmd.Dir = "/"
	return cmd
}
