package cow

import (
	"strings"

	"golang.org/x/sys/unix"
)

// maxXattrList is the kernel's bound for a list of names.
const maxXattrList = 64 << 10

// Only attributes of the user namespace exist in a view, and none on what is
// below: packages have none. The overlay's own are hidden.
func userXattr(name string) bool { return strings.HasPrefix(name, "user.") }

// nameless reports whether an attribute has a namespace but no name.
func nameless(name string) bool { return name == "user." }

// Getxattr returns an extended attribute, or ENODATA.
func (v *View) Getxattr(n *Node, name string) ([]byte, error) {
	if nameless(name) {
		return nil, unix.EINVAL
	}
	if !userXattr(name) || hiddenXattr(name) {
		return nil, unix.ENODATA
	}
	var val []byte
	err := v.readXattrs(n, unix.ENODATA, func(path string, follow bool) error {
		get := unix.Lgetxattr
		if follow {
			get = unix.Getxattr
		}
		size, err := get(path, name, nil)
		if err != nil {
			return err
		}
		val = make([]byte, size)
		size, err = get(path, name, val)
		if err == nil {
			val = val[:size]
		}
		return err
	})
	return val, err
}

// Listxattr returns the names of the extended attributes.
func (v *View) Listxattr(n *Node) ([]string, error) {
	var names []string
	err := v.readXattrs(n, nil, func(path string, follow bool) error {
		list := unix.Llistxattr
		if follow {
			list = unix.Listxattr
		}
		buf := make([]byte, maxXattrList)
		size, err := list(path, buf)
		if err != nil {
			return err
		}
		for _, name := range splitXattrs(buf[:size]) {
			if userXattr(name) && !hiddenXattr(name) {
				names = append(names, name)
			}
		}
		return nil
	})
	return names, err
}

// splitXattrs returns the names of what listxattr(2) gives.
func splitXattrs(list []byte) []string {
	return strings.FieldsFunc(string(list), func(r rune) bool { return r == 0 })
}

// readXattrs calls f with the native path of a node; if it has none, none is returned.
func (v *View) readXattrs(n *Node, none error, f func(path string, follow bool) error) error {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.closed {
		return unix.ESTALE
	}
	if !n.upper || !markable(n.typ) {
		return none
	}
	p, err := v.native(n)
	if err == errNameless {
		return none
	}
	if err != nil {
		return err
	}
	defer p.release()
	return f(p.path())
}

// Setxattr sets an extended attribute. flags are unix.XATTR_CREATE and XATTR_REPLACE.
func (v *View) Setxattr(n *Node, name string, value []byte, flags int) error {
	switch {
	case nameless(name):
		return unix.EINVAL
	case !userXattr(name):
		return unix.EOPNOTSUPP
	case hiddenXattr(name), !markable(n.typ):
		return unix.EPERM
	}
	bytes := int64(len(name) + len(value))
	if err := v.account.take(bytes, 0); err != nil {
		return err
	}
	defer v.account.made(bytes, 0)
	return v.changeXattr(n, func() error {
		if !n.upper && flags&unix.XATTR_REPLACE != 0 {
			return unix.ENODATA
		}
		return nil
	}, func(path string, follow bool) error {
		if follow {
			return unix.Setxattr(path, name, value, flags)
		}
		return unix.Lsetxattr(path, name, value, flags)
	})
}

// Removexattr removes an extended attribute.
func (v *View) Removexattr(n *Node, name string) error {
	switch {
	case nameless(name):
		return unix.EINVAL
	case !userXattr(name):
		return unix.EOPNOTSUPP
	case hiddenXattr(name), !markable(n.typ):
		return unix.ENODATA
	}
	return v.changeXattr(n, func() error {
		if !n.upper {
			return unix.ENODATA
		}
		return nil
	}, func(path string, follow bool) error {
		if follow {
			return unix.Removexattr(path, name)
		}
		return unix.Lremovexattr(path, name)
	})
}

// changeXattr calls f with the native path of a node that it has copied up, if
// check finds nothing against it.
func (v *View) changeXattr(n *Node, check func() error, f func(path string, follow bool) error) error {
	for {
		err := v.tryXattr(n, check, f)
		if err != errCopyUp {
			return err
		}
		if err := v.copyUp(n, -1); err != nil {
			return err
		}
	}
}

func (v *View) tryXattr(n *Node, check func() error, f func(path string, follow bool) error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := v.writable(); err != nil {
		return err
	}
	if n.split {
		v.replace(n)
		return unix.ESTALE
	}
	if err := check(); err != nil {
		return err
	}
	if err := v.bringUp(n); err != nil {
		return err
	}
	p, err := v.native(n)
	if err == errNameless {
		return unix.ESTALE
	}
	if err != nil {
		return err
	}
	defer p.release()
	if err := f(p.path()); err != nil {
		return err
	}
	v.touched(n)
	return nil
}
