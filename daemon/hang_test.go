package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"condafs/handover"
)

const hangEnv = "CONDAFS_TEST_TAKEOVER"

// TestMain is also both programs of TestHangingProgramGivesWay.
func TestMain(m *testing.M) {
	if os.Getenv(hangEnv) == "" {
		os.Exit(m.Run())
	}
	if err := hangOrGoOn(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// hangOrGoOn hangs as the new program, and tells what it has when it is the one that goes on again.
func hangOrGoOn() error {
	to, err := NewTakeover(os.Args[3])
	if err != nil {
		return err
	}
	signals := handover.Catch()
	if to.Back == "" {
		to.hurry(time.Millisecond, "/m", signals)
		for {
			time.Sleep(time.Hour)
		}
	}
	to.Hurry("/m", signals)
	if to.deadline != nil {
		return errors.New("it would give way to the one that hangs")
	}
	img, err := handover.Load(to.file)
	if err != nil {
		return err
	}
	var st state
	if err := img.Get(partDaemon, &st); err != nil {
		return err
	}
	_, err = fmt.Fprintln(os.NewFile(uintptr(st.Lock), "lock"), to.Back)
	return err
}

// TestHangingProgramGivesWay has a program hang that is to take over. The other one goes on in the same process, with the files that were
// handed over.
func TestHangingProgramGivesWay(t *testing.T) {
	img := &handover.Image{}
	if err := img.Put(partDaemon, state{Lock: 5}); err != nil {
		t.Fatal(err)
	}
	f, err := img.Store()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	args, err := Handed{Image: 3, Other: 4}.args("/m")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), hangEnv+"=1")
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{f, self, w}
	if err := errors.Join(cmd.Start(), w.Close()); err != nil {
		t.Fatal(err)
	}
	said, rerr := io.ReadAll(r)
	if err := errors.Join(cmd.Wait(), rerr); err != nil || !strings.Contains(string(said), "take over /m: it did not go on within 1ms") {
		t.Errorf("it says %q, %v", said, err)
	}
}
