package index

import (
	"fmt"
	"os"

	"condafs/fault"

	"golang.org/x/sys/unix"
)

// checkOwner makes sure that nobody else can put anything into the store's directory:
// who could rename objects/ or put a link in its place would have the daemon write
// where it should not, with the daemon's rights. What a umask has left open is closed.
func checkOwner(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fault.New("open store", dir, fault.Other, err).WithHint(hintNoStore)
	}
	euid := uint32(os.Geteuid())
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return fault.New("open store", dir, fault.Other, unix.ENOTDIR).WithHint(hintNoStore)
	}
	// Root may do everything anyway, so a directory of root's is as good as one's own.
	if st.Uid != euid && st.Uid != 0 {
		return fault.New("open store", dir, fault.Permission, fmt.Errorf("it belongs to uid %d", st.Uid)).
			WithHint("run condafs as that user, or name a store of your own")
	}
	const others = 0o022
	if st.Mode&others == 0 {
		return nil
	}
	if st.Uid != euid {
		return fault.New("open store", dir, fault.Permission, fmt.Errorf("others can write to it (mode %04o)", st.Mode&0o7777)).
			WithHint("name a directory below it, which will be made")
	}
	if err := unix.Chmod(dir, st.Mode&0o7777&^others); err != nil {
		return fault.New("open store", dir, fault.Other, err)
	}
	return nil
}
