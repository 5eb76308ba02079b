package posix

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"condafs/internal/longrun"
	"condafs/internal/racetest"
)

// A place is where a suite is run: a native directory, or the tree of a session that is started for it.
type place struct {
	name   string
	dir    string   // a suite works in a directory below it
	prefix []string // what runs the suite's command
	daemon *daemon  // nil: native
}

const patience = 90 * time.Second

// places starts the daemons once. Their paths are short, since those of sockets have to be.
var places = sync.OnceValues(func() ([]*place, error) {
	native := &place{name: "native", dir: filepath.Join(scratch, "n")}
	if err := os.Mkdir(native.dir, 0o755); err != nil {
		return nil, err
	}
	all := []*place{native}
	bin, err := build()
	if err != nil {
		return nil, err
	}
	for _, way := range [][]string{{"passthrough"}, {"daemon", "CONDAFS_FAILPOINTS=passthrough.ask=ENOMEM@1+"}} {
		name := way[0]
		d, err := startDaemon(bin, filepath.Join(scratch, name[:1]), way[1:])
		if err != nil {
			for _, p := range all {
				err = errors.Join(err, p.end())
			}
			return nil, err
		}
		all = append(all, &place{name: name, dir: filepath.Join(d.point, "pkgs"), daemon: d,
			prefix: []string{bin, "run", "--mount", d.point, "--label", "posix", "--"}})
	}
	return all, nil
})

// build makes condafs with its failpoints, and with CONDAFS_LONG with the race detector, if there is a C compiler for it.
func build() (string, error) {
	if path := os.Getenv("CONDAFS_TEST_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	path := filepath.Join(scratch, "condafs")
	ways := []string{"-race", "-race=false"}
	if !longrun.Wanted() {
		ways = ways[1:]
	}
	var errs []error
	for _, race := range ways {
		out, err := exec.Command("go", "build", race, "-tags", "condafs_faults", "-o", path, "condafs/cmd/condafs").CombinedOutput()
		if err == nil {
			return path, nil
		}
		errs = append(errs, fmt.Errorf("build condafs: %w\n%s", err, out))
	}
	return "", errors.Join(errs...)
}

// command is a suite's command, in a new directory of the place that is also its TMPDIR.
func (p *place) command(suite string, args ...string) *exec.Cmd {
	const script = `mkdir "$0" && cd "$0" && export TMPDIR="$0" && exec "$@"`
	args = append(append(append([]string{}, p.prefix...), "sh", "-c", script, filepath.Join(p.dir, suite)), args...)
	return exec.Command(args[0], args[1:]...)
}

func (p *place) end() error {
	if p.daemon == nil {
		return nil
	}
	return p.daemon.end()
}

// daemon is a mounted store. It ends in order when the tests are killed, or time out.
type daemon struct {
	bin, point string
	cmd        *exec.Cmd
	log        bytes.Buffer // to be read when exited has been
	exited     chan error
}

func startDaemon(bin, dir string, env []string) (*daemon, error) {
	d := &daemon{bin: bin, point: filepath.Join(dir, "m"), exited: make(chan error, 1)}
	if err := os.MkdirAll(d.point, 0o755); err != nil {
		return nil, err
	}
	args := []string{"mount", "-f", "--store", filepath.Join(dir, "store"), d.point}
	if os.Getuid() == 0 { // pjdfstest works as other users, too
		args = append(args, "--allow-other")
	}
	d.cmd = exec.Command(bin, args...)
	d.cmd.Env = append(append(os.Environ(), env...), racetest.Env)
	d.cmd.Stdout, d.cmd.Stderr = &d.log, &d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { d.exited <- d.cmd.Wait() }()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(d.point, ".condafs")); err == nil {
			return d, nil
		}
		select {
		case err := <-d.exited:
			return nil, fmt.Errorf("condafs mount ended: %w\n%s", err, &d.log)
		default:
		}
	}
	return nil, errors.Join(fmt.Errorf("%s is not mounted after %v", d.point, patience), d.end())
}

// end looks through all that the suites have left in the store, and stops the daemon.
func (d *daemon) end() error {
	out, err := exec.Command(d.bin, "verify", "--full", "--mount", d.point).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("condafs verify: %w\n%s", err, out)
	}
	if sigErr := d.cmd.Process.Signal(syscall.SIGTERM); sigErr != nil {
		err = errors.Join(err, sigErr)
	}
	select {
	case exit := <-d.exited:
		log := d.log.String()
		if bad := strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic"); exit != nil || bad {
			err = errors.Join(err, fmt.Errorf("the daemon ended with %v\n%s", exit, log))
		}
	case <-time.After(patience):
		err = errors.Join(err, fmt.Errorf("the daemon of %s did not end within %v", d.point, patience))
	}
	return err
}
