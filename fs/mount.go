package fs

import (
	"errors"
	"log/slog"
	"path/filepath"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"condafs/cow"
	"condafs/fault"
)

// fsName is the source and the subtype of the mount: "condafs … fuse.condafs" in
// /proc/self/mountinfo.
const fsName = "condafs"

// maxWrite is the largest READ or WRITE, in bytes. Each request under way holds a
// buffer of this size; larger ones bring little, and nothing with passthrough.
const maxWrite = 256 << 10

// MountOptions say where and how to mount.
type MountOptions struct {
	// MountPoint is an empty directory.
	MountPoint string
	// AllowOther lets other users in: each has sessions of their own.
	AllowOther bool
	// Options are what -o gave, each of them one option or several with commas between.
	Options []string
	// Store is the directory of the engine's store.
	Store string
	// Shelf is the directory that clients take packages from natively; "" if there is none.
	Shelf string
	// Socket and Version are published in MOUNT/.condafs, with the store.
	Socket, Version string
	// Logger takes what goes wrong; nil discards.
	Logger *slog.Logger
	// NoPassthrough sends all file contents through the daemon.
	NoPassthrough bool
}

// Mount mounts the engine's views and serves them in the background. It returns
// when the mount answers. The caller ends it by Unmount, and closes the engine
// when Wait has returned.
func Mount(engine *cow.Engine, o MountOptions) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	opts, err := parseOptions(o.Options)
	if err != nil {
		return nil, err
	}
	opts.allowOther = opts.allowOther || o.AllowOther
	mp, err := filepath.Abs(o.MountPoint)
	if err != nil {
		return nil, fault.New("mount", o.MountPoint, fault.Other, err)
	}
	if err := CheckMountPoint(mp, opts.allowOther); err != nil {
		return nil, err
	}
	// From here on by its real name: a link on the way may change, the mount doesn't.
	if mp, err = filepath.EvalSymlinks(mp); err != nil {
		return nil, fault.New("mount", o.MountPoint, fault.Other, err)
	}
	info, err := o.info()
	if err != nil {
		return nil, fault.New("mount", mp, fault.Other, err)
	}
	shut(mp)
	f := newFileSystem(engine, o.Logger, info, o.Store)
	f.passthrough.Store(!o.NoPassthrough)
	fd, err := attach(mp, opts)
	if err != nil {
		return nil, explain(mp, err)
	}
	if f.device, err = newDevice(fd, f.protocol(), mp, o.Logger); err != nil {
		return nil, fault.New("mount", mp, fault.Other, errors.Join(err, unmount(mp, direct(), true)))
	}
	flags, err := f.device.greet()
	if err != nil {
		return nil, fault.New("mount", mp, fault.Other, errors.Join(err, f.device.close(), unmount(mp, direct(), true)))
	}
	f.greeted(flags)
	s := &Server{mountPoint: mp, direct: direct(), fs: f, done: make(chan struct{})}
	f.device.start()
	s.serve()
	if s.abort, err = connection(mp); err != nil {
		return nil, fault.New("mount", mp, fault.Other, errors.Join(err, s.Unmount(true)))
	}
	return s, nil
}

// serve does what goes along with answering requests, in the background, until there is
// no mount any more.
func (s *Server) serve() {
	s.fs.engine.SetInvalidator(s.fs.notify)
	go s.fs.notify.run()
	go func() {
		defer s.finish()
		<-s.fs.device.gone
		s.fs.notify.stop()
		<-s.fs.notify.done
		if err := s.fs.device.close(); err != nil {
			s.fs.log.Warn("cannot close the connection", "error", err)
		}
	}()
}

// Ask makes one real round trip through the kernel and the daemon of a mount and back. It waits for as long as that takes.
func Ask(mountPoint string) error {
	var st unix.Statfs_t // the kernel never answers this by itself
	if err := unix.Statfs(mountPoint, &st); err != nil {
		return fault.New("ask", mountPoint, fault.Other, err)
	}
	return nil
}

// direct reports whether we mount by mount(2) ourselves: fusermount3 is for those who may not.
func direct() bool { return unix.Geteuid() == 0 }

// protocol makes the part of go-fuse that knows what requests and replies look like.
func (f *fileSystem) protocol() *fuse.ProtocolServer {
	return fuse.NewProtocolServer(f, &fuse.MountOptions{
		Name:          fsName,
		MaxWrite:      maxWrite,
		MaxBackground: 64,
		Logger:        slog.NewLogLogger(f.log.Handler(), slog.LevelWarn),
		PanicHandler:  panicHandler(f.log),
		MaxStackDepth: stackDepth(f.store),
		// The kernel asks for these before writes and at each ls -l; no view has any.
		IgnoreSecurityLabels: true,
		// Contents change by the mount's own requests only.
		ExplicitDataCacheControl: true,
		// O_TRUNC comes with OPEN; set-id bits don't exist here, so nobody need ask
		// whether a write has to clear them; a plain listing needs no attributes.
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_READDIRPLUS_AUTO,
	})
}

// stackDepth is how deep file systems may be stacked for passthrough: backing
// files that are on an overlay themselves (a container's root) need one more.
// Not more than needed: an overlay can't be put on a mount that allows two.
func stackDepth(store string) int {
	var st unix.Statfs_t
	if store != "" && unix.Statfs(store, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC {
		return 2
	}
	return 1
}
