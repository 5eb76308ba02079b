package conda

import (
	"encoding/binary"
	"encoding/hex"
)

// RattlerMeta is what rattler keeps in NAME.lock beside a package.
type RattlerMeta struct {
	Revision uint64 // counts the times that the package was fetched
	SHA256   string // of the archive, lower-case hex; empty when unknown
}

// ParseRattlerMeta reads a NAME.lock: a big-endian revision and perhaps a
// SHA-256. An empty file is one that was just made, of revision 0.
func ParseRattlerMeta(name string, b []byte) (RattlerMeta, error) {
	var m RattlerMeta
	switch len(b) {
	case 0:
		return m, nil
	case 8, 40:
		m.Revision = binary.BigEndian.Uint64(b)
		m.SHA256 = hex.EncodeToString(b[8:])
		return m, nil
	}
	return m, corrupt("read package revision", name, "%d bytes instead of 8 or 40", len(b))
}
