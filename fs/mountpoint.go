package fs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

const fuseDevice = "/dev/fuse"

// CheckMountPoint tells beforehand, and with what to do about it, why mounting at
// path could not work: by far the most mounts that fail do so for these reasons.
func CheckMountPoint(path string, allowOther bool) error {
	if err := checkDirectory(path); err != nil {
		return err
	}
	return CheckSystem(allowOther)
}

// CheckSystem tells why this user could not mount anywhere.
func CheckSystem(allowOther bool) error {
	if err := checkDevice(fuseDevice); err != nil {
		return err
	}
	if direct() {
		return nil
	}
	return checkHelper(allowOther, "/etc/fuse.conf")
}

func problem(path string, k fault.Kind, err error, hint string) error {
	return fault.New("mount", path, k, err).WithHint(hint)
}

func checkDirectory(path string) error {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, unix.ENOTCONN):
		return problem(path, fault.Stale, errors.New("a mount whose daemon has died is still there"),
			"take it away with: condafs umount --lazy "+path)
	case errors.Is(err, fs.ErrNotExist):
		return problem(path, fault.NotFound, errors.New("no such directory"), "make it first: mkdir -p "+path)
	case err != nil:
		return fault.New("mount", path, fault.Other, err)
	case !st.IsDir():
		return problem(path, fault.Usage, errors.New("not a directory"), "give an empty directory")
	}
	typ, err := mountedAt(path)
	if err != nil {
		return fault.New("mount", path, fault.Other, err)
	}
	switch typ {
	case "":
	case "fuse." + fsName:
		return problem(path, fault.Busy, errors.New("condafs is mounted here already"), "use it, or end it with: condafs umount "+path)
	default:
		return problem(path, fault.Busy, fmt.Errorf("another file system (%s) is mounted here", typ), "give an empty directory")
	}
	if !direct() && unix.Access(path, unix.W_OK) != nil {
		return problem(path, fault.Permission, errors.New("only its owner may mount here"), "give a directory of your own")
	}
	return checkEmpty(path)
}

func checkEmpty(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fault.New("mount", path, fault.Other, err)
	}
	_, readErr := d.Readdirnames(1)
	if err := d.Close(); err != nil {
		return fault.New("mount", path, fault.Other, err)
	}
	switch {
	case readErr == nil:
		return problem(path, fault.Exists, errors.New("the directory is not empty"),
			"give an empty one; a package cache is taken over with: condafs import "+path)
	case readErr != io.EOF:
		return fault.New("mount", path, fault.Other, readErr)
	}
	return nil
}

// mountedAt returns the type of the file system that is mounted at exactly this
// path, or "".
func mountedAt(path string) (string, error) {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	typ, _, err := lookUpMount(path)
	return typ, err
}

// lookUpMount returns the type and the device number of what is mounted at a path without links; both are empty if
// nothing is. It does not ask that mount for anything.
func lookUpMount(path string) (typ, device string, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", "", err
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		// 36 35 98:0 /root /mount/point options… - type source superoptions
		mount, super, ok := strings.Cut(sc.Text(), " - ")
		fields := strings.Fields(mount)
		if ok && len(fields) > 4 && unescape.Replace(fields[4]) == path {
			typ, _, _ = strings.Cut(super, " ") // the last one is on top
			device = fields[2]
		}
	}
	return typ, device, nil
}

// unescape undoes how mountinfo writes blanks and backslashes.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func checkDevice(dev string) error {
	d, err := os.OpenFile(dev, os.O_RDWR, 0)
	switch {
	case err == nil:
		return d.Close()
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return problem(dev, fault.NotFound, errors.New("this system offers no FUSE device"),
			"load it with: modprobe fuse; start a container with: --device /dev/fuse --cap-add SYS_ADMIN")
	case errors.Is(err, fs.ErrPermission) && !direct():
		return problem(dev, fault.Permission, err, "let everybody open it, as most systems do, by root: chmod 666 "+dev)
	case errors.Is(err, fs.ErrPermission):
		return problem(dev, fault.Permission, err, "start the container with: --device /dev/fuse --cap-add SYS_ADMIN")
	default:
		return fault.New("open", dev, fault.Other, err)
	}
}

// checkHelper checks what a user without privileges needs.
func checkHelper(allowOther bool, conf string) error {
	if _, err := findHelper(helperPlaces); err != nil {
		return err
	}
	if !allowOther {
		return nil
	}
	text, err := os.ReadFile(conf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil // fusermount3, which can read it, has the last word
	}
	for line := range strings.Lines(string(text)) {
		if strings.TrimSpace(line) == "user_allow_other" {
			return nil
		}
	}
	return problem("allow_other", fault.Permission, errors.New("only root may allow it on this system"),
		"put the line user_allow_other into "+conf)
}

// helperPlaces are where fusermount3 is looked for: /bin in case PATH is empty.
var helperPlaces = []string{"fusermount3", "/bin/fusermount3"}

func findHelper(places []string) (string, error) {
	for _, p := range places {
		if path, err := exec.LookPath(p); err == nil {
			return path, nil
		}
	}
	return "", problem("fusermount3", fault.NotFound, errors.New("only this program lets users mount, and it is not installed"),
		"install it with: apt install fuse3 (or dnf install fuse3)")
}

// explain puts an error of mounting itself into words.
func explain(mountPoint string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM):
		return problem(mountPoint, fault.Permission, err, "mounting needs CAP_SYS_ADMIN; start the container with: --device /dev/fuse --cap-add SYS_ADMIN")
	case errors.Is(err, unix.ENODEV):
		return problem(mountPoint, fault.Unsupported, err, "this kernel has no FUSE; load it with: modprobe fuse")
	case !direct():
		return problem(mountPoint, fault.Other, errors.New(strings.TrimSpace(err.Error())), "fusermount3 has told why on standard error")
	}
	return fault.New("mount", mountPoint, fault.Other, err)
}
