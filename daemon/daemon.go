package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"condafs/control"
	"condafs/cow"
	"condafs/fault"
	"condafs/fs"
	"condafs/handover"
	"condafs/index"
	"condafs/observe"
	"condafs/proc"
	"condafs/scrub"
	"condafs/service"
	"condafs/shelf"
	"condafs/trim"
)

// Settings are what the user has chosen. They go over to a program that takes the
// daemon's place.
type Settings struct {
	MountPoint string // absolute
	Store      string // absolute
	Socket     string // where to take commands
	AllowOther bool   // other users of the host may use the mount and the socket
	Shelf      shelf.Mode
	Sharing    cow.Sharing // whose verified packages all users get
	Trusted    []uint32
	Quota      cow.Quota // of each user but root and the daemon's
	Lanes      bool      // the owner's clients unpack natively
	ScrubRate  int64     // bytes a second; 0: no scrub by itself
	ScrubEvery time.Duration
	Space      trim.Limits
	Metrics    string // where to serve figures and the page; "": nowhere
	Options    []string
	LogFile    string // absolute; "" for standard error
	LogFormat  string
	Verbose    bool // log details, too
}

// Config is what a daemon is started with.
type Config struct {
	Settings
	Version string
	Logger  *slog.Logger
	// Signals are those that end it, if it can be upgraded. The context that it runs
	// with is theirs.
	Signals *handover.Signals
}

// engineOptions are those of the engine, but for its shelves.
func (c *Config) engineOptions(procs proc.Table) cow.Options {
	return cow.Options{Procs: procs, Logger: c.Logger, MountPoint: c.MountPoint, Sharing: c.Sharing, Trusted: c.Trusted, Quota: c.Quota, Lanes: c.Lanes}
}

// Ready is called once requests of the mount are served.
type Ready func()

// Run mounts, serves, and returns when the daemon has been stopped: nil after an
// orderly end by ctx, by `condafs umount` or because somebody else has unmounted.
func Run(ctx context.Context, c Config, ready Ready) (err error) {
	// Cheap reasons not to start come first: opening a store takes its lock.
	if err := fs.CheckMountPoint(c.MountPoint, c.AllowOther); err != nil {
		return err
	}
	if err := checkApart(c.Store, c.MountPoint); err != nil {
		return err
	}
	store, err := index.Open(c.Store, index.Options{Logger: c.Logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	procs, err := proc.NewLinux()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, procs.Close()) }()
	o := c.engineOptions(procs)
	sh, err := openShelf(store, c, nil)
	if err != nil {
		return err
	}
	shelfPath := ""
	if sh != nil {
		o.Shelf, shelfPath = onShelf{sh}, sh.Path()
		defer sh.Close()
	}
	rsh, err := openRattlerShelf(store, c, uint32(os.Geteuid()), nil)
	if err != nil {
		return err
	}
	if rsh != nil {
		o.RattlerShelf = onShelf{rsh}
		defer rsh.Close()
	}
	engine, err := cow.New(store, o)
	if err != nil {
		return err
	}
	d := &daemon{
		shelf: sh, rattlerShelf: rsh,
		config: c, store: store, engine: engine, procs: procs,
		started: time.Now(), owner: uint32(os.Geteuid()),
		stop: make(chan struct{}), ended: make(chan struct{}), handOvers: make(chan *upgrade, 1),
	}
	d.scrub = d.newScrubber()
	if d.listener, err = control.Listen(c.Socket, c.AllowOther); err != nil {
		return errors.Join(err, engine.Close(context.WithoutCancel(ctx)))
	}
	d.mount, err = fs.Mount(engine, c.mountOptions(shelfPath))
	if err != nil {
		return errors.Join(err, d.listener.Close(), engine.Close(context.WithoutCancel(ctx)))
	}
	return d.serve(ctx, func() error {
		if err := d.observe(); err != nil {
			return err
		}
		c.Logger.Info("mounted", "mount", c.MountPoint, "store", c.Store, "socket", c.Socket, "version", c.Version)
		ready()
		return nil
	})
}

func (c *Config) mountOptions(shelf string) fs.MountOptions {
	return fs.MountOptions{
		MountPoint: c.MountPoint, AllowOther: c.AllowOther, Options: c.Options,
		Store: c.Store, Shelf: shelf, Socket: c.Socket, Version: c.Version, Logger: c.Logger,
	}
}

// checkApart refuses a store that would be hidden below its own mount, or the other
// way round: the daemon would wait for itself.
func checkApart(store, mount string) error {
	for _, p := range [][2]string{{store, mount}, {mount, store}} {
		if rel, err := filepath.Rel(p[0], p[1]); err == nil && filepath.IsLocal(rel) {
			return fault.New("mount", mount, fault.Usage, fmt.Errorf("the store %s and the mount point are inside of each other", store)).
				WithHint("choose directories that are apart")
		}
	}
	return nil
}

// daemon is the running whole.
type daemon struct {
	config       Config
	store        *index.Store
	engine       *cow.Engine
	shelf        *shelf.Shelf // nil without one
	rattlerShelf *shelf.Shelf
	procs        *proc.Linux
	scrub        *scrub.Scrubber
	mount        *fs.Server
	started      time.Time
	owner        uint32
	manager      *service.Manager // set by serve
	dismiss      func()           // has the witness end; of serve

	listener net.Listener
	server   *control.Server // answers on listener
	served   chan error      // how that has ended

	changing  sync.RWMutex    // read-held by commands that change sessions, held while nothing may
	handOvers chan *upgrade   // what the main loop is to do
	upgrading sync.Mutex      // held by who does an upgrade, or tries to
	trying    context.Context // ends when the daemon ends, and with it what is tried
	giveUp    context.CancelFunc
	upgradeMu sync.Mutex
	upgraded  *control.Upgrade // the last one

	mu       sync.Mutex // held while somebody tries to unmount
	endAll   bool       // sessions end for good; else they wait for the next daemon
	figures  figures    // of what it has done
	watched  *observe.Server
	trims    trims
	stopOnce sync.Once
	stop     chan struct{} // closed when it was unmounted by a request
	ended    chan struct{} // closed when the engine has been closed
	endErr   error         // of that; read after ended
}

// How long parts of the end may take before the daemon goes without them.
const (
	unmountTimeout  = 3 * time.Second  // for the last requests after an unmount
	shutdownTimeout = 10 * time.Second // for commands under way
)

// serve works from begin on until the daemon is to end, and ends it in order.
func (d *daemon) serve(ctx context.Context, begin func() error) error {
	log := d.config.Logger
	d.trying, d.giveUp = context.WithCancel(context.Background())
	d.manager = service.Started(log)
	d.dismiss = d.startWitness()
	defer func() { d.dismiss() }()
	d.listen()
	err := begin()
	if err == nil {
		d.manager.Ready(d.works())
		err = d.work(ctx)
	}
	d.manager.Stopping("ending sessions of " + d.config.MountPoint)
	d.unobserve()
	d.noUpgrades()
	d.scrub.Stop()
	err = errors.Join(err, d.unmount())
	if err := d.store.MarkEnding(); err != nil {
		d.config.Logger.Warn("who mounts next will not wait for the store", "err", err.Error())
	}
	// What is committed now must not be given up because of the signal that ends us.
	end := context.WithoutCancel(ctx)
	d.endErr = d.endSessions(end)
	close(d.ended)
	timed, cancel := context.WithTimeout(end, shutdownTimeout)
	defer cancel()
	if e := d.server.Shutdown(timed); e != nil {
		log.Warn("commands were under way", "err", e.Error(), "closed", d.server.Close())
	}
	if e := <-d.served; e != nil {
		log.Warn("serving commands", "err", e.Error())
	}
	log.Info("stopped", "mount", d.config.MountPoint)
	return errors.Join(err, d.endErr)
}

// listen begins to take commands.
func (d *daemon) listen() {
	d.server = control.NewServer(backend{d}, d.owner, d.config.AllowOther, d.config.Logger)
	served := make(chan error, 1)
	d.served = served
	go func(s *control.Server, l net.Listener) { served <- s.Serve(l) }(d.server, d.listener)
}

// work returns when the daemon is to end.
func (d *daemon) work(ctx context.Context) error {
	log := d.config.Logger
	d.scrub.Start()
	defer d.keepSpace(ctx)()
	rest := d.manager.Watch(d.askMount, d.works)
	defer func() { rest() }()
	for {
		select {
		case u := <-d.handOvers:
			rest()
			d.manager.Reloading("handing over to " + u.report.To)
			d.dismiss()       // the upgrade has a guard
			d.replace(ctx, u) // returns if it has failed
			d.dismiss = d.startWitness()
			d.manager.Ready(d.works())
			rest = d.manager.Watch(d.askMount, d.works)
			continue
		case <-ctx.Done():
			log.Info("stopping", "why", context.Cause(ctx).Error())
		case <-d.stop:
			log.Info("stopping", "why", "condafs umount")
		case <-d.mount.Done():
			log.Info("stopping", "why", d.whoUnmounted())
		case err := <-d.served:
			d.served <- err
			err = fault.New("serve commands at", d.config.Socket, fault.Other, err)
			log.Error("stopping", "why", err.Error())
			return err
		}
		return nil
	}
}

// whoUnmounted waits for a request that is about to say that it was it.
func (d *daemon) whoUnmounted() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.endAll {
		return "condafs umount"
	}
	return "unmounted by somebody else"
}

// works says in a line what the daemon does.
func (d *daemon) works() string {
	return fmt.Sprintf("serving %s from %s; sessions: %d", d.config.MountPoint, d.config.Store, d.engine.Views())
}

// unmount takes the mount away unless that has happened, even from those who use it.
func (d *daemon) unmount() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.mount.Unmount(false)
	if fault.Is(err, fault.Busy) {
		d.config.Logger.Warn("the mount is in use; it goes all the same", "mount", d.config.MountPoint)
		err = d.mount.Unmount(true)
	}
	t := time.NewTimer(unmountTimeout)
	defer t.Stop()
	select {
	case <-d.mount.Done():
	case <-t.C:
		// Somebody has open files, or a mount namespace of its own. The connection
		// ends with this process, and they get ENOTCONN.
		d.config.Logger.Warn("the mount is still in use somewhere", "mount", d.config.MountPoint)
	}
	return err
}

func (d *daemon) endSessions(ctx context.Context) error {
	d.mu.Lock()
	all := d.endAll
	d.mu.Unlock()
	var err error
	if all {
		err = d.engine.EndAll(ctx)
	}
	return errors.Join(err, d.engine.Close(ctx))
}
