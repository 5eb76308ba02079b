package daemon

import (
	"context"
	"errors"
	"os"

	"condafs/conda"
	"condafs/control"
	"condafs/cow"
	"condafs/fault"
)

func pid() int { return os.Getpid() }

func (a *api) Sessions(context.Context) ([]control.Session, error) {
	l := []control.Session{}
	if a.daemon == nil {
		return l, nil
	}
	var of []uint32
	if !a.all {
		of = append(of, a.peer.UID)
	}
	for _, s := range a.daemon.engine.Sessions(of...) {
		l = append(l, session(s))
	}
	return l, nil
}

func session(s cow.SessionInfo) control.Session {
	members := s.Members
	if members == nil {
		members = []int{}
	}
	return control.Session{
		ID: s.ID, UID: s.UID, Label: s.Label, Command: s.Command, Explicit: s.Explicit, Ephemeral: s.Ephemeral,
		Members: members, Started: s.Started, Base: uint64(s.Base), Dirty: s.Dirty, OverlayBytes: s.OverlayBytes, State: s.State,
	}
}

func (a *api) Start(_ context.Context, r control.StartRequest) (*control.Started, error) {
	const op = "start session"
	if a.daemon == nil {
		return nil, a.noDaemon(op)
	}
	if a.peer.PID == 0 {
		return nil, fault.New(op, r.Label, fault.Unsupported, errors.New("the daemon cannot see this process: they are in separate pid namespaces")).
			WithHint("run the daemon outside of the container, or inside of the same one")
	}
	// The command is for people, and is kept: passwords in it are for nobody.
	command, _ := conda.StripCredentials([]byte(r.Command))
	a.daemon.changing.RLock()
	defer a.daemon.changing.RUnlock()
	s, err := a.daemon.engine.StartSession(cow.StartOptions{
		PID: a.peer.PID, UID: a.peer.UID, GID: a.peer.GID,
		Label: r.Label, Command: string(command), Ephemeral: r.Ephemeral, OnFailure: cow.OnFailure(r.OnFailure), BesideShelf: r.BesideShelf,
	})
	if err != nil {
		return nil, err
	}
	st := &control.Started{ID: s.ID()}
	if r.BesideShelf {
		st.Shelf = a.shelfPath()
	}
	return st, nil
}

func (a *api) End(ctx context.Context, id string, r control.EndRequest) (*control.Report, error) {
	if a.daemon == nil {
		return nil, a.noDaemon("end session")
	}
	a.daemon.changing.RLock()
	defer a.daemon.changing.RUnlock()
	a.daemon.adoptSurvivors(a.peer.PID, a.peer.UID)
	rep, err := a.daemon.engine.End(ctx, id, cow.Outcome{ExitCode: r.ExitCode})
	return report(rep, err)
}

func (a *api) Commit(ctx context.Context, id string) (*control.Report, error) {
	if a.daemon == nil {
		return nil, a.noDaemon("commit")
	}
	a.daemon.changing.RLock()
	defer a.daemon.changing.RUnlock()
	rep, err := a.daemon.engine.Commit(ctx, id)
	return report(rep, err)
}

func (a *api) Discard(ctx context.Context, id string) error {
	if a.daemon == nil {
		return a.noDaemon("discard")
	}
	a.daemon.changing.RLock()
	defer a.daemon.changing.RUnlock()
	return a.daemon.engine.Discard(ctx, id)
}

func report(r cow.Report, err error) (*control.Report, error) {
	if err != nil {
		return nil, err
	}
	out := &control.Report{Head: uint64(r.Seq), Committed: []control.Committed{}, Pending: dropped(r.Pending), Dropped: dropped(r.Dropped), Quarantined: dropped(r.Quarantined)}
	for _, u := range r.Committed {
		out.Committed = append(out.Committed, control.Committed{Path: u.Path, Kind: u.Kind.String(), Trust: u.Trust.String(), Deleted: u.Deleted})
	}
	return out, nil
}

func dropped(l []cow.Note) []control.Dropped {
	out := []control.Dropped{}
	for _, n := range l {
		out = append(out, control.Dropped(n))
	}
	return out
}
