package daemon

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"condafs/control"
	"condafs/fault"
	"condafs/fs"
	"condafs/handover"
	"condafs/internal/failpoint"
	"condafs/proc"
)

// How long parts of an upgrade may take before it is given up.
const (
	commandsPatience = 10 * time.Second // for commands under way
	requestsPatience = 5 * time.Second  // for clients' requests under way
)

// Names of the image's sections.
const (
	partDaemon    = "daemon"
	partMount     = "mount"
	partEngine    = "engine"
	partShelf     = "shelf"
	partRattler   = "shelf-rattler"
	partProcesses = "processes"
)

// state is the daemon's own part of an image. Descriptors are ints.
type state struct {
	Settings Settings
	Started  time.Time
	Lock     int // of the store
	Listener int // of the control socket
	Guard    int // what the guard waits at
	GuardPID int
	Begun    int64 // when the mount stopped to answer, in ns of the monotonic clock
	Upgrade  control.Upgrade
}

// upgrade is one that is about to happen.
type upgrade struct {
	program *handover.Program
	report  control.Upgrade
}

// Upgrade looks whether another program can take the daemon's place, and unless it is to
// be only that, has it do so. It returns before that happens: what is under way now,
// this answer too, would be cut off.
func (a *api) Upgrade(ctx context.Context, r control.UpgradeRequest, progress control.ProgressFunc) (*control.Upgrade, error) {
	const op = "upgrade"
	d := a.daemon
	if d == nil {
		return nil, a.noDaemon(op)
	}
	if d.config.Signals == nil {
		return nil, fault.New(op, "", fault.Unsupported, errors.New("this daemon was not started by `condafs mount`"))
	}
	if !d.upgrading.TryLock() {
		return nil, fault.New(op, d.config.MountPoint, fault.Busy, errors.New("another upgrade is under way"))
	}
	begins := false
	defer func() {
		if !begins {
			d.upgrading.Unlock()
		}
	}()
	if err := d.freeToUpgrade(); err != nil {
		return nil, err
	}
	// One that lies on the mount could not be read while that does not answer.
	if err := a.checkOutside("upgrade to", r.Binary); err != nil {
		return nil, err
	}
	program, err := handover.OpenProgram(r.Binary)
	if err != nil {
		return nil, err
	}
	defer func() {
		if !begins {
			_ = program.Close() // it was only read
		}
	}()
	progress.Report(control.Progress{Phase: "rehearsing"})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.trying, cancel)()
	report, err := d.rehearse(ctx, program)
	if err != nil {
		d.config.Logger.Warn("an upgrade was refused", "program", r.Binary, "uid", a.peer.UID, "why", err.Error())
		return nil, err
	}
	if r.DryRun {
		return report, nil
	}
	report.ID, report.State = strings.ToLower(rand.Text()), control.UpgradeBegun
	d.setUpgrade(*report)
	d.config.Logger.Info("upgrading", "program", r.Binary, "from", report.From, "to", report.To, "uid", a.peer.UID, "by", a.peer.PID)
	begins = true
	d.handOvers <- &upgrade{program, *report} // there is room: one is under way at a time
	return report, nil
}

// Upgraded tells what has come of an upgrade.
func (a *api) Upgraded(_ context.Context, id string) (*control.Upgrade, error) {
	if a.daemon != nil {
		if u := a.daemon.lastUpgrade(); u != nil && u.ID == id {
			return u, nil
		}
	}
	return nil, fault.New("upgrade", id, fault.NotFound, errors.New("this daemon does not know of it"))
}

func (d *daemon) lastUpgrade() *control.Upgrade {
	d.upgradeMu.Lock()
	defer d.upgradeMu.Unlock()
	return d.upgraded
}

func (d *daemon) setUpgrade(u control.Upgrade) {
	d.upgradeMu.Lock()
	defer d.upgradeMu.Unlock()
	d.upgraded = &u
}

// freeToUpgrade refuses to cut off what somebody has asked for and what takes long.
func (d *daemon) freeToUpgrade() error {
	for _, what := range d.server.Working() {
		if what != "upgrade" {
			return fault.New("upgrade", d.config.MountPoint, fault.Busy, fmt.Errorf("%s is under way", what)).WithHint("try again when that is done")
		}
	}
	return nil
}

// noUpgrades ends what is being tried, and lets nothing more begin.
func (d *daemon) noUpgrades() {
	d.giveUp()
	for !d.upgrading.TryLock() {
		select {
		case u := <-d.handOvers: // it comes too late
			_ = u.program.Close() // it was only read
			d.upgrading.Unlock()
		case <-time.After(time.Millisecond):
		}
	}
}

// rehearse lets the program read an image of what is there now. Clients wait only while
// that is drawn.
func (d *daemon) rehearse(ctx context.Context, program *handover.Program) (*control.Upgrade, error) {
	goOn, begun, err := d.pause(ctx)
	if err != nil {
		return nil, err
	}
	report := control.Upgrade{
		State: control.UpgradeRehearsed, From: d.config.Version, PID: os.Getpid(), MountPoint: d.config.MountPoint, Time: time.Now(),
	}
	// Of what is only for the new program to keep, this one is told nothing.
	drawn, err := d.draw(state{Settings: d.config.Settings, Started: d.started, Lock: -1, Listener: -1, Guard: -1, Upgrade: report})
	goOn()
	report.PauseMS = milliseconds(monotonic() - begun)
	if err != nil {
		return nil, err
	}
	proc.Close(drawn.held)
	f, err := drawn.img.Store()
	if err != nil {
		return nil, err
	}
	args, err := Handed{Image: rehearsalImage}.args(d.config.MountPoint, "--rehearse")
	if err != nil {
		return nil, err
	}
	said, err := program.Rehearse(ctx, args, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	report.To, report.Sessions, report.Files = said.Version, said.Sessions, said.Files
	return &report, nil
}

// rehearsalImage is the descriptor of the image in a rehearsal: see handover.Rehearse.
const rehearsalImage = 3

// TakeoverCommand is the command that a program is started with to take over.
const TakeoverCommand = "takeover"

// GuardFD is the descriptor that a guard waits at: see handover.StartGuard.
const GuardFD = 3

// args are the arguments that hand it over.
func (h Handed) args(mountPoint string, more ...string) ([]string, error) {
	b, err := json.Marshal(h)
	if err != nil {
		return nil, fault.New("hand over", "", fault.Other, err)
	}
	return append(append([]string{TakeoverCommand, "--handed", string(b)}, more...), "--", mountPoint), nil
}

// pause stops all that changes anything, clients last; begun is when those stopped. All
// goes on after goOn, or if it fails.
func (d *daemon) pause(ctx context.Context) (goOn func(), begun int64, err error) {
	var undo []func()
	goOn = func() {
		for _, f := range slices.Backward(undo) {
			f()
		}
	}
	defer func() {
		if err != nil {
			goOn()
		}
	}()
	if err := d.noChanges(ctx); err != nil {
		return nil, 0, err
	}
	undo = append(undo, d.changing.Unlock)
	d.scrub.Stop()
	undo = append(undo, d.scrub.Start)
	if err := d.engine.Pause(ctx); err != nil {
		return nil, 0, err
	}
	undo = append(undo, d.engine.Continue)
	for _, s := range d.shelves() {
		s.Pause()
		undo = append(undo, s.Continue)
	}
	begun = monotonic()
	if err := d.mount.Pause(requestsPatience); err != nil {
		return nil, 0, err
	}
	undo = append(undo, d.mount.Continue)
	return goOn, begun, d.engine.Settle(ctx)
}

// noChanges waits for commands that change sessions; those that come from then on wait.
func (d *daemon) noChanges(ctx context.Context) error {
	for end := time.Now().Add(commandsPatience); !d.changing.TryLock(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) || ctx.Err() != nil {
			return fault.New("upgrade", d.config.MountPoint, fault.Busy, errors.New("a session is being committed")).WithHint("try again when that is done")
		}
	}
	return nil
}

// drawn is an image and the descriptors that must go with it.
type drawn struct {
	img   *handover.Image
	files []int
	held  []proc.Held // of files, those that the caller closes
}

// draw makes the image of the paused daemon.
func (d *daemon) draw(st state) (*drawn, error) {
	mount, engine, err := d.mount.Draw()
	if err != nil {
		return nil, err
	}
	held, err := d.procs.Draw()
	if err != nil {
		return nil, err
	}
	img := &handover.Image{}
	err = errors.Join(img.Put(partDaemon, st), img.Put(partMount, mount), img.Put(partEngine, engine), img.Put(partProcesses, held))
	if d.shelf != nil {
		err = errors.Join(err, img.Put(partShelf, d.shelf.Draw()))
	}
	if d.rattlerShelf != nil {
		err = errors.Join(err, img.Put(partRattler, d.rattlerShelf.Draw()))
	}
	if err != nil {
		proc.Close(held)
		return nil, err
	}
	t := &Takeover{st: st, mount: mount, engine: engine, held: held}
	return &drawn{img, t.descriptors(), held}, nil
}

// replace has the upgrade's program take this one's place, and returns if that fails
// while all can go on.
func (d *daemon) replace(ctx context.Context, u *upgrade) {
	defer d.upgrading.Unlock()
	err := errors.Join(d.handOver(ctx, u), u.program.Close())
	u.report.State, u.report.Why = control.UpgradeFailed, err.Error()
	d.setUpgrade(u.report)
	d.config.Logger.Error("not upgraded, the daemon goes on", "to", u.report.To, "why", err.Error())
}

// handOver stops one thing after the other, and starts them again if it fails before the
// store is closed.
func (d *daemon) handOver(ctx context.Context, u *upgrade) error {
	listener, err := control.Keep(d.listener)
	if err != nil {
		return err
	}
	defer listener.Close() //nolint:errcheck // another descriptor of what is closed elsewhere
	timed, cancel := context.WithTimeout(ctx, commandsPatience)
	err = d.server.Shutdown(timed)
	cancel()
	<-d.served // it does not listen any more
	defer d.listenAgain(listener)
	d.unobserve()
	defer d.observeAgain()
	if err != nil {
		return fault.New("upgrade", d.config.MountPoint, fault.Busy, errors.New("a command is under way")).WithHint("try again when that is done")
	}
	self, err := handover.Self()
	if err != nil {
		return err
	}
	defer self.Close() //nolint:errcheck // it was only read
	guard, err := self.StartGuard([]string{TakeoverCommand, "--guard", strconv.Itoa(os.Getpid()), "--", d.config.MountPoint, d.config.Socket}, os.Stderr)
	if err != nil {
		return err
	}
	goOn, begun, err := d.pause(ctx)
	if err != nil {
		return errors.Join(err, guard.Dismiss())
	}
	failpoint.Hit(failpoint.UpgradePaused, d.config.Store)
	u.report.Time = time.Now()
	err = d.exec(u, self, guard, state{
		Settings: d.config.Settings, Started: d.started, Listener: int(listener.Fd()),
		Guard: guard.FD(), GuardPID: guard.PID(), Begun: begun, Upgrade: u.report,
	})
	goOn()
	return errors.Join(err, guard.Dismiss())
}

// CleanUp takes away the mount and the socket of a daemon that has ended, unless another
// one has taken their places already.
func CleanUp(mountPoint, socket string) error {
	var err error
	for {
		_, ierr := control.ReadInfo(mountPoint)
		if errors.Is(ierr, unix.ECONNABORTED) {
			continue // it was asked in the moment of its death
		}
		if errors.Is(ierr, control.ErrDead) {
			err = fs.Unmount(mountPoint, true)
		}
		break
	}
	if fault.Is(err, fault.NotMounted) {
		err = nil
	}
	if c, derr := net.DialTimeout("unix", socket, time.Second); !errors.Is(derr, unix.ECONNREFUSED) {
		if derr == nil {
			derr = c.Close()
		}
		if errors.Is(derr, os.ErrNotExist) {
			derr = nil
		}
		return errors.Join(err, derr)
	}
	if rerr := os.Remove(socket); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, fault.New("remove", socket, fault.Other, rerr))
	}
	return err
}

// listenAgain takes commands again, at the socket that has been there all the time.
func (d *daemon) listenAgain(f *os.File) {
	l, err := control.Inherit(f, d.config.Socket)
	if err != nil {
		// The main loop ends the daemon: without commands nobody could.
		d.served = make(chan error, 1)
		d.served <- err
		return
	}
	d.listener = l
	d.listen()
}

// exec draws the image and runs the new program. It returns if something fails before the
// store is closed. After that either the new program runs, or this one from its beginning.
func (d *daemon) exec(u *upgrade, self *handover.Program, guard *handover.Guard, st state) error {
	lock, err := unix.FcntlInt(d.store.LockFile().Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fault.New("upgrade", d.config.MountPoint, fault.Other, err)
	}
	defer unix.Close(lock) //nolint:errcheck // another descriptor of what the store has
	st.Lock = lock
	drawn, err := d.draw(st)
	if err != nil {
		return err
	}
	defer proc.Close(drawn.held)
	f, err := drawn.img.Store()
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // in memory
	files := append(drawn.files, int(f.Fd()), u.program.FD(), self.FD())
	if err := handover.Own(files); err != nil { // they are; one that is not open shows now
		return err
	}
	if err := failpoint.Err(failpoint.UpgradeDrawn, d.config.Store); err != nil {
		return fault.New("upgrade", d.config.MountPoint, fault.Other, err)
	}
	if err := guard.Begin(); err != nil {
		return fault.New("upgrade", d.config.MountPoint, fault.Other, err)
	}
	log := d.config.Logger
	log.Info("handing over", "from", u.report.From, "to", u.report.To)
	if err := d.store.Close(); err != nil {
		log.Error("closing the store", "err", err.Error()) // whoever opens it next mends it
	}
	failpoint.Hit(failpoint.UpgradeClosed, d.config.Store)
	// What fails from here on can't be undone by going on.
	h := Handed{Image: int(f.Fd()), Self: u.program.FD(), Other: self.FD(), Stop: d.config.Signals.Hold() != nil}
	args, err := h.args(d.config.MountPoint)
	if err == nil {
		err = u.program.Replace(args, files)
	}
	log.Error("the new program does not run; the old one begins again", "err", err.Error())
	h.Self, h.Other, h.Back = h.Other, h.Self, err.Error()
	args, aerr := h.args(d.config.MountPoint)
	err = errors.Join(err, aerr, self.Replace(args, files))
	// Neither runs. What is on disk is whole: the next daemon goes on with it.
	log.Error("failed", "err", err.Error())
	os.Exit(1)
	return nil
}

// monotonic is a clock that all programs of a machine share, in nanoseconds.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0 // there is no kernel without it
	}
	return ts.Nano()
}

func milliseconds(ns int64) int64 { return (ns + 999_999) / 1_000_000 }
