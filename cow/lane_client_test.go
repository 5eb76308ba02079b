package cow

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// getsLanes reports whether what the client unpacks is unpacked past the mount.
func (c *client) getsLanes() bool {
	return c.s != nil && c.v.lanes.wanted != nil && c.s.uid == c.s.e.owner
}

// beyond tells where a path leads that goes through a lane's link.
func (c *client) beyond(p string) (native string, ok bool) {
	if !c.getsLanes() {
		return "", false
	}
	top, below, ok := cutPackage(p)
	if !ok {
		return "", false
	}
	err := c.on(top, func(n *Node, a Attr) error {
		if a.Mode&unix.S_IFMT != unix.S_IFLNK {
			return unix.EINVAL
		}
		target, err := c.v.Readlink(n)
		if filepath.Dir(target) != c.v.lanes.dir {
			return unix.EINVAL
		}
		native = target + "/" + below
		return err
	})
	return native, err == nil
}

// cutPackage splits a path into that of what may be a package and what is below.
func cutPackage(p string) (top, below string, ok bool) {
	depth := 2
	if strings.HasPrefix(p, rattlerDir+"/") {
		depth = 3
	}
	parts := strings.SplitN(p, "/", depth+1)
	if len(parts) <= depth {
		return "", "", false
	}
	return strings.Join(parts[:depth], "/"), parts[depth], true
}

// pass does natively what is beyond a lane's link. It reports false if there is none, or if the lane has been taken over meanwhile: then
// the kernel would come back to the mount.
func (c *client) pass(p string, f func(native string) error) (done bool, err error) {
	native, ok := c.beyond(p)
	if !ok {
		return false, nil
	}
	if err = f(native); errors.Is(err, fs.ErrNotExist) {
		if again, still := c.beyond(p); !still || again != native {
			return false, nil
		}
	}
	return true, err
}

// pass1 does natively what must be beyond a lane's link.
func (c *client) pass1(p string, f func(native string) error) error {
	done, err := c.pass(p, f)
	if !done {
		return errors.Join(err, unix.EXDEV)
	}
	return err
}

// laneOf returns the lane that a package is being unpacked in, or nil.
func (c *client) laneOf(f *fixture) *lane {
	native, ok := c.beyond("pkgs/" + f.dist + "/x")
	if !ok {
		return nil
	}
	c.v.mu.RLock()
	defer c.v.mu.RUnlock()
	return c.v.lanes.live[filepath.Base(filepath.Dir(native))]
}

func readNative(native string) (string, error) {
	st, err := os.Lstat(native)
	if err != nil {
		return "", err
	}
	if st.Mode().Type() == fs.ModeSymlink {
		return os.Readlink(native)
	}
	b, err := os.ReadFile(native)
	return string(b), err
}

func listNative(native string) ([]string, error) {
	list, err := os.ReadDir(native)
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, err
}
