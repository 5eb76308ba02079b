package fs

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"condafs/internal/racetest"
)

// workerEnv makes this binary run one of its workers instead of its tests: a
// client that has to be a process of its own.
const workerEnv = "CONDAFS_FS_WORKER"

var workers = map[string]func(args []string) error{
	"bench":    benchWorker,
	"stranger": strangerWorker,
	"ordinary": ordinaryWorker,
	"pause":    pauseWorker,
	"statfs":   statfsWorker,
	"user":     userWorker,
}

func TestMain(m *testing.M) {
	name := os.Getenv(workerEnv)
	if name == "" {
		os.Exit(m.Run())
	}
	if err := workers[name](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func worker(name string, args ...string) *exec.Cmd {
	// Not by its path: another user may not be able to walk to it.
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), workerEnv+"="+name, racetest.Env)
	cmd.Dir = "/"
	return cmd
}
