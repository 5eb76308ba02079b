package daemon

import (
	"condafs/control"
)

// backend is a daemon as the control server sees it.
type backend struct{ d *daemon }

var _ control.Backend = backend{}

func (b backend) As(p control.Peer) control.API {
	return &api{store: b.d.store, daemon: b.d, peer: p, all: p.UID == 0 || p.UID == b.d.owner, owner: b.d.owner,
		version: b.d.config.Version, log: b.d.config.Logger}
}

func (b backend) SessionOwner(id string) (uint32, bool) {
	for _, s := range b.d.engine.Sessions() {
		if s.ID == id {
			return s.UID, true
		}
	}
	return 0, false
}
