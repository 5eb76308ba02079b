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
	s, ok := b.d.engine.Session(id)
	if !ok {
		return 0, false
	}
	return s.UID(), true
}
