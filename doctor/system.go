package doctor

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// system looks at the kernel and at who may mount.
func (p *Patient) system() []Finding {
	var l []Finding
	if err := p.System(p.AllowOther); err != nil {
		l = append(l, complaint("fuse", err))
	} else {
		l = append(l, Finding{Check: "fuse", State: Fine, What: "this user can mount"})
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		l = append(l, p.kernel(unix.ByteSliceToString(u.Release[:])))
	}
	if f, ok := p.namespaces(); ok {
		l = append(l, f)
	}
	return l
}

// kernel judges a release. Its FUSE passes reads by the daemon since 6.9, for root.
func (p *Patient) kernel(release string) Finding {
	f := Finding{Check: "kernel", State: Fine, What: "Linux " + release}
	major, minor := number(release)
	if p.UID == 0 && (major < 6 || major == 6 && minor < 9) {
		f.What += ": what is read through the mount goes through the daemon, which Linux 6.9 and later need not"
	}
	return f
}

// number reads the first two numbers of a release.
func number(release string) (major, minor int) {
	a, rest, _ := strings.Cut(release, ".")
	b, _, _ := strings.Cut(rest, ".")
	b, _, _ = strings.Cut(b, "-")
	major, errA := strconv.Atoi(a)
	minor, errB := strconv.Atoi(b)
	if errA != nil || errB != nil {
		return 0, 0
	}
	return major, minor
}

// namespaces tells whether `condafs run` can give a command a mount namespace.
func (p *Patient) namespaces() (Finding, bool) {
	if p.UID == 0 {
		return Finding{}, false
	}
	for _, name := range []string{"user/max_user_namespaces", "kernel/unprivileged_userns_clone"} {
		b, err := os.ReadFile(filepath.Join(p.Root, "proc/sys", name))
		if err == nil && strings.TrimSpace(string(b)) == "0" {
			return Finding{Check: "namespaces", State: Warning, What: "users may have no namespaces here, so `condafs run` leads clients through a link, which is slower",
				Mend: "by root: sysctl " + strings.ReplaceAll(name, "/", ".") + "=" + map[bool]string{true: "10000", false: "1"}[strings.HasPrefix(name, "user")]}, true
		}
	}
	return Finding{}, false
}
