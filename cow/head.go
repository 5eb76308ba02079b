package cow

import (
	"errors"
	"sync"
	"time"

	"condafs/index"
)

// headView is the read-only view of the newest snapshot, for people and
// backups. It shows what the daemon's user sees.
type headView struct {
	e    *Engine
	view *View

	mu   sync.Mutex // held while the view moves on
	snap *index.Snapshot
	gone bool
}

func newHeadView(e *Engine) (*headView, error) {
	snap := e.store.PinHead()
	view, err := newView(e.store, snap, "", spaces(e.owner), e.owner, e.gid, nil)
	if err != nil {
		snap.Release()
		return nil, err
	}
	view.onInvalid(e.entryChanged)
	return &headView{e: e, view: view, snap: snap}, nil
}

// follow moves the view to the present head. While clients read from it, that
// waits for the next commit.
func (h *headView) follow() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone || h.snap.Seq() == h.e.store.Head() {
		return
	}
	snap := h.e.store.PinHead()
	if err := h.view.Rebase(snap); err != nil {
		snap.Release()
		h.e.log.Warn("the view of the head stays behind", "error", err)
		return
	}
	h.snap.Release()
	h.snap = snap
}

func (h *headView) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return nil
	}
	h.gone = true
	err := h.view.Close()
	h.snap.Release()
	return err
}

// roots are the directories that clients expect on every mount.
var roots = []string{"pkgs", "pkgs/cache", "rattler", "rattler/pkgs"}

// makeRoots makes them in a store that is new.
func (e *Engine) makeRoots() error {
	snap := e.store.PinHead()
	defer snap.Release()
	var missing []string
	for _, dir := range roots {
		_, ok, err := snap.Get(SharedSpace + "/" + dir)
		if err != nil {
			return err
		}
		if !ok {
			missing = append(missing, dir)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	_, err := e.store.Update(e.working(), index.CommitInfo{UID: e.owner, What: []string{"a new store"}}, func(tx *index.Tx) error {
		var errs []error
		for _, dir := range missing {
			errs = append(errs, tx.Put(SharedSpace+"/"+dir, index.Entry{
				Kind: index.KindDir, Mode: 0o755, Owner: e.owner, Mtime: e.o.Now().Truncate(time.Second).UnixNano(),
			}))
		}
		return errors.Join(errs...)
	})
	return err
}
