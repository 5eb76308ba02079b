package control

import (
	"net"
	"sync"
)

const (
	// maxPerUser bounds the connections of one user who is not the owner.
	maxPerUser = 64
	// maxOthers bounds those of all such users together, so that they cannot use
	// up the daemon's file descriptors.
	maxOthers = 512
)

// limits counts connections of users other than the owner and root, who are never
// turned away.
type limits struct {
	mu    sync.Mutex
	owner uint32
	total int
	users map[uint32]int
}

func newLimits(owner uint32) *limits { return &limits{owner: owner, users: map[uint32]int{}} }

func (l *limits) enter(uid uint32) bool {
	if uid == 0 || uid == l.owner {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= maxOthers || l.users[uid] >= maxPerUser {
		return false
	}
	l.total++
	l.users[uid]++
	return true
}

func (l *limits) leave(uid uint32) {
	if uid == 0 || uid == l.owner {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.users[uid]--; l.users[uid] == 0 {
		delete(l.users, uid)
	}
}

// gate is a listener that identifies each peer and turns away who is over the limit.
type gate struct {
	net.Listener
	limits *limits
}

func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		p, err := peerOf(c)
		if err != nil || !g.limits.enter(p.UID) {
			_ = c.Close() // it was never let in
			continue
		}
		return &admitted{Conn: c, peer: p, limits: g.limits}, nil
	}
}

// admitted is a connection whose peer is known.
type admitted struct {
	net.Conn
	peer   Peer
	limits *limits
	once   sync.Once
}

func (a *admitted) Close() error {
	a.once.Do(func() { a.limits.leave(a.peer.UID) })
	return a.Conn.Close()
}
