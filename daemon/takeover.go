package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"condafs/control"
	"condafs/cow"
	"condafs/fault"
	"condafs/fs"
	"condafs/handover"
	"condafs/index"
	"condafs/internal/failpoint"
	"condafs/proc"
	"condafs/shelf"
)

// Handed is what a program is started with that is to go on with another's daemon, as JSON:
// either of the two may know fields that the other does not.
type Handed struct {
	Image int    `json:"image"` // descriptor of the image
	Self  int    `json:"self"`  // of the program itself; 0 if it only rehearses
	Other int    `json:"other"` // of the other one
	Back  string `json:"back"`  // why this program has the daemon back; "" if it is the new one
	Stop  bool   `json:"stop"`  // a signal to stop has come before
}

// Takeover is a daemon that another program was, and that this one is to go on with.
type Takeover struct {
	Handed
	file    *os.File // the image
	socket  *os.File
	st      state
	mount   *fs.Image
	engine  *cow.Image
	shelf   *shelf.Image // nil: there was none
	rattler *shelf.Image
	held    []proc.Held

	deadline *handover.Deadline // until clients are answered again; nil without one

	gc     int // what the garbage collector was set to
	memory int64
}

// NewTakeover takes a Handed, as JSON.
func NewTakeover(handed string) (*Takeover, error) {
	t := &Takeover{}
	if err := json.Unmarshal([]byte(handed), &t.Handed); err != nil {
		return nil, fault.New("take over", "", fault.Usage, err)
	}
	t.file = os.NewFile(uintptr(t.Image), "image")
	if t.Self > 0 {
		_ = unix.Close(t.Self) // it runs, and needs it no more
	}
	// Files that are made of descriptors are closed when they are found to be garbage. As
	// long as the other program may have them back, none may be.
	t.gc, t.memory = debug.SetGCPercent(-1), debug.SetMemoryLimit(math.MaxInt64)
	return t, nil
}

// Hurry has the other program go on if this one does not within handover.Patience, whatever it waits for. The other one, when it goes on
// again, has nobody to give way to.
func (t *Takeover) Hurry(mountPoint string, signals *handover.Signals) {
	if t.Back == "" {
		t.hurry(handover.Patience, mountPoint, signals)
	}
}

func (t *Takeover) hurry(patience time.Duration, mountPoint string, signals *handover.Signals) {
	t.deadline = handover.Within(patience, func() {
		// What Read has found may be half of it, and is not needed: all files that were handed over stay open for the other program,
		// too, until this one makes them its own. The store is left as a killed daemon leaves it.
		why := fault.New("take over", mountPoint, fault.IO, fmt.Errorf("it did not go on within %v", patience))
		err := t.replace(why, mountPoint, nil, signals)
		fmt.Fprintln(os.Stderr, "condafs:", err) // the logger may be what hangs
		os.Exit(1)
	})
}

// decided ends the deadline, and does not return if the other program goes on by now.
func (t *Takeover) decided() {
	if t.deadline != nil {
		t.deadline.Met()
		t.deadline = nil
	}
}

// Read reads the image.
func (t *Takeover) Read() error {
	img, err := handover.Load(t.file)
	if err != nil {
		return err
	}
	t.mount, t.engine = new(fs.Image), new(cow.Image)
	err = errors.Join(img.Get(partDaemon, &t.st), img.Get(partMount, t.mount), img.Get(partEngine, t.engine), img.Get(partProcesses, &t.held))
	if img.Has(partShelf) {
		t.shelf = new(shelf.Image)
		err = errors.Join(err, img.Get(partShelf, t.shelf))
	}
	if img.Has(partRattler) {
		t.rattler = new(shelf.Image)
		err = errors.Join(err, img.Get(partRattler, t.rattler))
	}
	if err != nil {
		return err
	}
	if err := t.engine.Check(); err != nil {
		return err
	}
	if err := fs.Compatible(t.st.Settings.Store, t.mount.Hello, t.mount.Answer); err != nil {
		return err
	}
	return index.CheckFormat(t.st.Settings.Store)
}

// Settings are those of the daemon.
func (t *Takeover) Settings() Settings { return t.st.Settings }

// Rehearse says that this program could go on with what Read has read.
func (t *Takeover) Rehearse(w io.Writer, version string) error {
	return handover.Rehearsed{
		Version: version, Sessions: len(t.engine.Sessions), Nodes: len(t.mount.Nodes), Files: len(t.mount.Files) + len(t.mount.Dirs),
	}.Answer(w)
}

// descriptors are the open files that the image is about.
func (t *Takeover) descriptors() []int {
	files := append([]int{t.mount.FD}, t.engine.Descriptors()...)
	for _, h := range t.held {
		files = append(files, h.FD)
	}
	for _, fd := range []int{t.st.Lock, t.st.Listener, t.st.Guard} {
		if fd >= 0 {
			files = append(files, fd)
		}
	}
	return files
}

// Run goes on with the daemon, and returns when it has been stopped. If it cannot go on
// it returns at once, with nothing changed: see GiveBack.
func (t *Takeover) Run(c Config) (err error) {
	c.Settings = t.st.Settings
	failpoint.Hit(failpoint.UpgradeBegun, c.Store)
	r := &resumption{t: t, c: c}
	d, err := r.resume()
	if err == nil && t.Back == "" {
		err = failpoint.Err(failpoint.UpgradeResumed, c.Store)
	}
	if err == nil {
		t.decided() // what is this program's own is lost to the other one
		err = handover.Own(t.descriptors())
	}
	if err != nil {
		return &notTaken{errors.Join(err, r.close())}
	}
	defer func() { err = errors.Join(err, r.end()) }()
	d.setUpgrade(t.report(c.Version))
	d.mount.Continue()
	pause := monotonic() - t.st.Begun
	for _, s := range d.shelves() {
		s.Continue()
	}
	d.engine.Continue()
	d.upgraded.PauseMS = milliseconds(pause)
	// As long as nobody is answered, the guard has reason to wait.
	if err := d.askMount(); err != nil {
		c.Logger.Warn("after the upgrade", "err", err.Error())
	}
	if err := handover.InheritGuard(t.st.Guard, t.st.GuardPID).Dismiss(); err != nil {
		c.Logger.Warn("the upgrade's guard", "err", err.Error())
	}
	t.settle()
	ctx := c.Signals.Context()
	if t.Stop {
		stopped, cancel := context.WithCancelCause(ctx)
		cancel(errors.New("a signal came during the upgrade"))
		ctx = stopped
	}
	d.observeAgain() // before commands are answered: then all is as it was
	return d.serve(ctx, func() error {
		t.tell(d)
		return nil
	})
}

// notTaken is an error before anything has changed.
type notTaken struct{ error }

func (e *notTaken) Unwrap() error { return e.error }

// NotTaken reports whether Run failed so that the other program can still go on.
func NotTaken(err error) bool {
	_, ok := errors.AsType[*notTaken](err)
	return ok
}

func (t *Takeover) report(version string) control.Upgrade {
	u := t.st.Upgrade
	u.State, u.To = control.UpgradeDone, version
	u.Sessions, u.Files = len(t.engine.Sessions), len(t.mount.Files)+len(t.mount.Dirs)
	if t.Back != "" {
		u.State, u.To, u.Why = control.UpgradeFailed, t.st.Upgrade.To, t.Back
	}
	return u
}

// tell logs who has taken over.
func (t *Takeover) tell(d *daemon) {
	log, u := d.config.Logger, d.lastUpgrade()
	pause := time.Duration(u.PauseMS) * time.Millisecond
	if t.Back != "" {
		log.Error("not upgraded, the old program goes on", "version", d.config.Version, "instead of", u.To, "why", t.Back,
			"mount", d.config.MountPoint, "pause", pause)
		return
	}
	log.Info("took over", "mount", d.config.MountPoint, "version", d.config.Version, "from", u.From, "pause", pause, "sessions", u.Sessions, "files", u.Files)
}

// settle lets go of what was kept for the other program.
func (t *Takeover) settle() {
	debug.SetGCPercent(t.gc)
	debug.SetMemoryLimit(t.memory)
	_ = unix.Close(t.Other)   // it was only read
	_ = unix.Close(t.st.Lock) // the store has another descriptor, and so on
	for _, h := range t.held {
		_ = unix.Close(h.FD)
	}
	_ = t.socket.Close()
	_ = t.file.Close()
}

// GiveBack has the other program go on, after Read or Run has failed. It returns if that
// fails, too.
func (t *Takeover) GiveBack(why error, signals *handover.Signals) error {
	if t.Back != "" {
		return why // this is that program
	}
	t.decided()
	files := []int{}
	if t.mount != nil {
		files = t.descriptors()
	}
	return t.replace(why, t.st.Settings.MountPoint, files, signals)
}

// replace runs the other program. files are those that may be this program's own by now.
func (t *Takeover) replace(why error, mountPoint string, files []int, signals *handover.Signals) error {
	failpoint.Hit(failpoint.UpgradeBack, "")
	other := handover.Inherited(t.Other)
	self, err := handover.Self()
	if err != nil {
		return errors.Join(why, err)
	}
	h := Handed{Image: t.Image, Self: t.Other, Other: self.FD(), Back: why.Error(), Stop: t.Stop || signals.Hold() != nil}
	args, err := h.args(mountPoint)
	if err != nil {
		return errors.Join(why, err)
	}
	return errors.Join(why, other.Replace(args, append([]int{h.Image, h.Other}, files...)))
}

// resumption is what a daemon is made of, step by step.
type resumption struct {
	t     *Takeover
	c     Config
	store *index.Store
	procs *proc.Linux
	d     *daemon
}

// dup returns another descriptor, so that closing it leaves the one that the image names.
func dup(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, fault.New("take over", "", fault.Corrupt, os.NewSyscallError("dup "+strconv.Itoa(fd), err))
	}
	return n, nil
}

func (r *resumption) resume() (*daemon, error) {
	t, c := r.t, r.c
	if err := r.open(); err != nil {
		return nil, err
	}
	if t.Back == "" {
		if err := failpoint.Err(failpoint.UpgradeOpened, c.Store); err != nil {
			return nil, err
		}
	}
	d := &daemon{
		config: c, store: r.store, procs: r.procs, started: t.st.Started, owner: uint32(os.Geteuid()),
		stop: make(chan struct{}), ended: make(chan struct{}), handOvers: make(chan *upgrade, 1),
	}
	r.d = d
	o := c.engineOptions(r.procs)
	shelfPath := ""
	var err error
	if t.shelf != nil {
		if d.shelf, err = openShelf(r.store, c, t.shelf); err != nil {
			return nil, err
		}
		o.Shelf, shelfPath = onShelf{d.shelf}, d.shelf.Path()
	}
	if t.rattler != nil {
		if d.rattlerShelf, err = openRattlerShelf(r.store, c, d.owner, t.rattler); err != nil {
			return nil, err
		}
		o.RattlerShelf = onShelf{d.rattlerShelf}
	}
	var refs *cow.Refs
	d.scrub = d.newScrubber()
	if d.engine, refs, err = cow.Resume(r.store, o, t.engine); err != nil {
		return nil, err
	}
	if d.mount, err = fs.Resume(d.engine, refs, t.mount, c.mountOptions(shelfPath)); err != nil {
		return nil, err
	}
	r.procs.Disown()
	t.socket = os.NewFile(uintptr(t.st.Listener), "socket")
	d.listener, err = control.Inherit(t.socket, c.Socket)
	return d, err
}

// open opens the store and the processes.
func (r *resumption) open() error {
	t, c := r.t, r.c
	lock, err := dup(t.st.Lock)
	if err != nil {
		return err
	}
	r.store, err = index.Open(c.Store, index.Options{
		Logger: c.Logger, Inherit: &index.Inheritance{Lock: os.NewFile(uintptr(lock), "lock"), Pins: t.engine.Pins()},
	})
	if err != nil {
		return err
	}
	if r.procs, err = proc.NewLinux(); err != nil {
		return err
	}
	held := make([]proc.Held, len(t.held))
	for i, h := range t.held {
		fd, err := dup(h.FD)
		if err != nil {
			return err
		}
		held[i] = proc.Held{ID: h.ID, FD: fd}
	}
	r.procs.Inherit(held)
	return nil
}

// close gives up what is open, so that the other program can open it.
func (r *resumption) close() error {
	if r.store == nil {
		return nil
	}
	return r.store.Close()
}

// end closes everything after a daemon has ended.
func (r *resumption) end() error {
	for _, s := range r.d.shelves() {
		s.Close()
	}
	return errors.Join(r.procs.Close(), r.store.Close())
}
