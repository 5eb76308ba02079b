package control

import (
	"context"
	"net"
	"sync"

	"condafs/fault"
)

const (
	// maxPerUser bounds the connections of one user who is not the owner.
	maxPerUser = 64
	// maxOthers bounds those of all such users together, so that they cannot use
	// up the daemon's file descriptors.
	maxOthers = 512
	// maxReads bounds the questions of one such user that are worked on at a time: an
	// answer may look at the whole index. More of them wait.
	maxReads = 2
)

// limits counts what users other than the owner and root ask for, who are never
// turned away.
type limits struct {
	owner  uint32
	others bool // such users are let in at all

	mu    sync.Mutex
	total int
	users map[uint32]*visitor
}

// visitor is a user with connections.
type visitor struct {
	conns int
	reads chan struct{}
}

func newLimits(owner uint32, others bool) *limits {
	return &limits{owner: owner, others: others, users: map[uint32]*visitor{}}
}

func (l *limits) free(uid uint32) bool { return uid == 0 || uid == l.owner }

func (l *limits) enter(uid uint32) bool {
	if l.free(uid) {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	v := l.users[uid]
	if v == nil {
		v = &visitor{reads: make(chan struct{}, maxReads)}
	}
	if !l.others || l.total >= maxOthers || v.conns >= maxPerUser {
		return false
	}
	l.total++
	v.conns++
	l.users[uid] = v
	return true
}

func (l *limits) leave(uid uint32) {
	if l.free(uid) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	v := l.users[uid]
	if v.conns--; v.conns == 0 {
		delete(l.users, uid)
	}
}

// read waits for the user's turn to ask a question. The caller calls done after it.
func (l *limits) read(ctx context.Context, uid uint32) (done func(), err error) {
	l.mu.Lock()
	v := l.users[uid]
	l.mu.Unlock()
	if v == nil {
		return func() {}, nil
	}
	select {
	case v.reads <- struct{}{}:
		return func() { <-v.reads }, nil
	case <-ctx.Done():
		return nil, fault.New("wait", "", fault.Canceled, context.Cause(ctx))
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
