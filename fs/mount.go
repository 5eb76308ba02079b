package fs

import (
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

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
	info, err := json.Marshal(struct {
		Socket  string `json:"socket"`
		Store   string `json:"store"`
		Shelf   string `json:"shelf,omitempty"`
		PID     int    `json:"pid"`
		Version string `json:"version"`
	}{o.Socket, o.Store, o.Shelf, os.Getpid(), o.Version})
	if err != nil {
		return nil, fault.New("mount", mp, fault.Other, err)
	}
	f := newFileSystem(engine, o.Logger, append(info, '\n'), o.Store)
	f.passthrough.Store(!o.NoPassthrough)
	srv, err := fuse.NewServer(f, mp, fuseOptions(opts, o))
	if err != nil {
		return nil, explain(mp, err)
	}
	s := &Server{mountPoint: mp, direct: direct(), fs: f, done: make(chan struct{})}
	engine.SetInvalidator(f.notify)
	go f.notify.run()
	go func() {
		defer s.finish()
		srv.Serve()
		<-f.notify.done
	}()
	if err := srv.WaitMount(); err != nil {
		return nil, fault.New("mount", mp, fault.Other, errors.Join(err, s.Unmount(true)))
	}
	if s.abort, err = connection(mp); err != nil {
		return nil, fault.New("mount", mp, fault.Other, errors.Join(err, s.Unmount(true)))
	}
	return s, nil
}

// direct reports whether we mount by mount(2) ourselves: fusermount3 is for those who may not.
func direct() bool { return unix.Geteuid() == 0 }

func fuseOptions(opts options, o MountOptions) *fuse.MountOptions {
	m := &fuse.MountOptions{
		AllowOther:        opts.allowOther,
		Options:           append([]string{"default_permissions"}, opts.kernel...),
		FsName:            fsName,
		Name:              fsName,
		MaxWrite:          maxWrite,
		MaxBackground:     64,
		DirectMountStrict: direct(),
		DirectMountFlags:  unix.MS_NOSUID | unix.MS_NODEV | opts.flags,
		Logger:            slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn),
		PanicHandler:      panicHandler(o.Logger),
		MaxStackDepth:     stackDepth(o.Store),
		// The kernel asks for these before writes and at each ls -l; no view has any.
		IgnoreSecurityLabels: true,
		// Contents change by the mount's own requests only.
		ExplicitDataCacheControl: true,
		// O_TRUNC comes with OPEN; set-id bits don't exist here, so nobody need ask
		// whether a write has to clear them; a plain listing needs no attributes.
		ExtraCapabilities: fuse.CAP_ATOMIC_O_TRUNC | fuse.CAP_HANDLE_KILLPRIV_V2 | fuse.CAP_READDIRPLUS_AUTO,
	}
	if opts.maxRead != 0 {
		m.Options = append(m.Options, "max_read="+strconv.Itoa(opts.maxRead))
	}
	return m
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
