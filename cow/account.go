package cow

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"condafs/beneath"
	"condafs/index"
)

// Quota bounds what each user may have, so that none can use up what all share. Root
// and the daemon's own user have no bounds. 0 means no bound.
type Quota struct {
	Sessions int64 // at a time
	Open     int64 // files and directories, and removed files that are still known
	Bytes    int64 // in overlays, and in the user's own space of the store
	Files    int64 // names in overlays
}

// Limit is one of the bounds of a Quota.
type Limit string

const (
	LimitSessions Limit = "sessions"
	LimitOpen     Limit = "open"
	LimitBytes    Limit = "bytes"
	LimitFiles    Limit = "files"
)

// Limits are all of them.
var Limits = []Limit{LimitSessions, LimitOpen, LimitBytes, LimitFiles}

// Of returns the bound that a limit has.
func (q *Quota) Of(l Limit) *int64 {
	switch l {
	case LimitSessions:
		return &q.Sessions
	case LimitOpen:
		return &q.Open
	case LimitBytes:
		return &q.Bytes
	}
	return &q.Files
}

// Usage is what a user has who has bounds.
type Usage struct {
	UID uint32
	Quota
}

// account counts what one user has. A nil account is of a user without bounds: all its
// methods allow everything.
//
// Sessions and open files are counted exactly. Bytes and files in overlays are counted
// up by what makes them more, and hardly ever down: only when a bound seems to be
// reached, the account looks at what is really there. So counting costs next to nothing,
// never falls behind, and is right again after a restart, when nothing was counted yet.
// The kernel must not write to files past the daemon then; see Handle.Passthrough.
type account struct {
	e   *Engine
	uid uint32

	sessions, open, bytes, files atomic.Int64
	pendingBytes, pendingFiles   atomic.Int64 // counted, and perhaps not made yet
	grownBytes, grownFiles       atomic.Int64 // all that was ever counted
	counted                      atomic.Bool  // since the engine has started

	mu     sync.Mutex // guards what follows, and recounts
	last   time.Time  // when the last recount began
	took   time.Duration
	told   map[Limit]time.Time
	checks chan struct{} // one for each unit of the user that is checked at the same time

	views sync.Map // *Session, nothing: whose overlays count
}

// account returns that of a user, or nil if the user has no bounds.
func (e *Engine) account(uid uint32) *account {
	if uid == 0 || uid == e.owner || e.o.Quota == (Quota{}) {
		return nil
	}
	e.accounting.Lock()
	defer e.accounting.Unlock()
	a := e.accounts[uid]
	if a == nil {
		// Others always find a place to check theirs.
		a = &account{e: e, uid: uid, told: make(map[Limit]time.Time), checks: make(chan struct{}, max(1, cap(e.slots)-1))}
		e.accounts[uid] = a
	}
	return a
}

// Usage tells what users with bounds have, by uid. With uids, only these.
func (e *Engine) Usage(uids ...uint32) []Usage {
	e.accounting.Lock()
	var list []*account
	for uid, a := range e.accounts {
		if len(uids) == 0 || slices.Contains(uids, uid) {
			list = append(list, a)
		}
	}
	e.accounting.Unlock()
	var out []Usage
	for _, a := range list {
		a.refresh()
		out = append(out, Usage{a.uid, Quota{Sessions: a.sessions.Load(), Open: a.open.Load(), Bytes: a.bytes.Load(), Files: a.files.Load()}})
	}
	slices.SortFunc(out, func(x, y Usage) int { return cmp.Compare(x.UID, y.UID) })
	return out
}

// Quota returns the bounds.
func (e *Engine) Quota() Quota { return e.o.Quota }

// counts reports whether the user's bytes are bounded.
func (a *account) counts() bool { return a != nil && a.e.o.Quota.Bytes > 0 }

// enter counts a session that is about to begin.
func (a *account) enter() error {
	if a == nil {
		return nil
	}
	if n, most := a.sessions.Add(1), a.e.o.Quota.Sessions; most > 0 && n > most {
		a.sessions.Add(-1)
		return a.refuse(LimitSessions, unix.EDQUOT)
	}
	return nil
}

// resume counts a session that goes on from before a restart.
func (a *account) resume() {
	if a != nil {
		a.sessions.Add(1)
	}
}

// exit is the opposite of enter and resume.
func (a *account) exit() {
	if a != nil {
		a.sessions.Add(-1)
	}
}

// follow has a session's overlay count from now on.
func (a *account) follow(s *Session) {
	if a != nil {
		a.views.Store(s, nil)
	}
}

// leave notes that a session has ended.
func (a *account) leave(s *Session) {
	if a != nil {
		a.views.Delete(s)
		a.exit()
	}
}

// opened counts something that is about to be open.
func (a *account) opened(n int64) error {
	if a == nil {
		return nil
	}
	if is, most := a.open.Add(n), a.e.o.Quota.Open; most > 0 && is > most {
		a.open.Add(-n)
		return a.refuse(LimitOpen, unix.EMFILE)
	}
	return nil
}

// keep counts something that is open and must not be refused.
func (a *account) keep(n int64) {
	if a != nil {
		a.open.Add(n)
	}
}

// closed is the opposite of opened and keep.
func (a *account) closed(n int64) {
	if a != nil {
		a.open.Add(-n)
	}
}

// grow counts what is there already, or must not be refused.
func (a *account) grow(bytes, files int64) {
	if a == nil {
		return
	}
	a.bytes.Add(bytes)
	a.files.Add(files)
	a.grownBytes.Add(bytes)
	a.grownFiles.Add(files)
}

// take counts what is about to be made, unless that would be more than is allowed. After
// it was made, or not, the caller calls made with the same numbers.
func (a *account) take(bytes, files int64) error {
	if a == nil {
		return nil
	}
	a.pendingBytes.Add(bytes)
	a.pendingFiles.Add(files)
	a.grow(bytes, files)
	if a.over() == "" && a.counted.Load() {
		return nil
	}
	a.recount()
	over := a.over()
	if over == "" {
		return nil
	}
	a.made(bytes, files)
	a.bytes.Add(-bytes)
	a.files.Add(-files)
	return a.refuse(over, unix.EDQUOT)
}

// made notes that what was taken is on disk, or will not be.
func (a *account) made(bytes, files int64) {
	if a != nil {
		a.pendingBytes.Add(-bytes)
		a.pendingFiles.Add(-files)
	}
}

// over returns the bound that is exceeded, if any.
func (a *account) over() Limit {
	q := &a.e.o.Quota
	switch {
	case q.Bytes > 0 && a.bytes.Load() > q.Bytes:
		return LimitBytes
	case q.Files > 0 && a.files.Load() > q.Files:
		return LimitFiles
	}
	return ""
}

// longestWait is how long a user who is at a bound waits at most to be counted again.
const longestWait = 5 * time.Second

// recount looks at what the user really has. It is to take a tenth of the time, so a user
// who is at a bound all the time is slowed down.
func (a *account) recount() {
	asked := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last.After(asked) {
		return // somebody else did it meanwhile
	}
	if !a.last.IsZero() {
		time.Sleep(min(10*a.took-time.Since(a.last), longestWait))
	}
	a.recountLocked()
}

// refresh is recount for those who only want to know, and don't wait.
func (a *account) refresh() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last.IsZero() || time.Since(a.last) >= 10*a.took {
		a.recountLocked()
	}
}

func (a *account) recountLocked() {
	start := time.Now()
	// What is made meanwhile may count twice, and never not at all.
	bytes, files := a.pendingBytes.Load()-a.grownBytes.Load(), a.pendingFiles.Load()-a.grownFiles.Load()
	u, err := a.measure()
	a.last, a.took = start, time.Since(start)
	if err != nil {
		a.e.log.Warn("what a user has could not be counted anew", "uid", a.uid, "error", err)
		return
	}
	a.bytes.Store(u.Bytes + bytes + a.grownBytes.Load())
	a.files.Store(u.Files + files + a.grownFiles.Load())
	a.counted.Store(true)
}

// measure adds up what is on disk and in the user's space. Trees that are deeper than it
// looks are an error: then the user stays with what was counted.
func (a *account) measure() (beneath.Usage, error) {
	var sum beneath.Usage
	var errs []error
	a.views.Range(func(key, _ any) bool {
		s := key.(*Session)
		u, err := s.view.measureAll(s.dir())
		sum.Bytes += u.Bytes
		sum.Files += u.Files
		errs = append(errs, err)
		return true
	})
	head := a.e.store.PinHead()
	defer head.Release()
	own, err := ownBytes(head, PrivateSpace(a.uid))
	sum.Bytes += own
	return sum, errors.Join(append(errs, err)...)
}

// measureAll tells what a session has on disk in dir, files without a name included.
func (v *View) measureAll(dir string) (beneath.Usage, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return beneath.Usage{}, nil
	}
	if err != nil {
		return beneath.Usage{}, err
	}
	defer unix.Close(fd) //nolint:errcheck // of O_PATH, it has nothing to tell
	u, err := beneath.Measure(fd, ".")
	seen := make(map[uint64]bool)
	nameless := func(fd int) {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Nlink == 0 && !seen[st.Ino] {
			seen[st.Ino] = true
			u.Bytes += beneath.Size(&st)
			u.Files++
		}
	}
	v.hmu.Lock()
	defer v.hmu.Unlock()
	for h := range v.handles {
		nameless(int(h.f.Fd()))
	}
	for fd := range v.orphans {
		nameless(fd)
	}
	return u, err
}

// ownBytes adds up what lies in a space of the index.
func ownBytes(g getter, dir string) (int64, error) {
	list, err := g.List(dir)
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, e := range list {
		if e.Kind != index.KindDir {
			sum += e.Size
			continue
		}
		below, err := ownBytes(g, dir+"/"+e.Name)
		if err != nil {
			return sum, err
		}
		sum += below
	}
	return sum, nil
}

// tellEvery is how often the log tells of the same limit of the same user.
const tellEvery = time.Minute

// refuse logs which limit was reached, and returns what the client gets.
func (a *account) refuse(l Limit, errno unix.Errno) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := time.Now(); now.Sub(a.told[l]) >= tellEvery {
		a.told[l] = now
		most := strconv.FormatInt(*a.e.o.Quota.Of(l), 10)
		a.e.log.Warn("a user has reached a limit", "uid", a.uid, "limit", l, "most", most, "error", errno,
			"raise", fmt.Sprintf("condafs mount --limit %s=NUMBER", l))
	}
	return errno
}

// maxQuarantined is how many things of a user with bounds are kept in quarantine, and
// quarantineShare which part of the user's bytes they may take.
const (
	maxQuarantined  = 64
	quarantineShare = 8
)

// trim removes the oldest of what the user has in quarantine.
func (a *account) trim() error {
	if a == nil {
		return nil
	}
	records, err := a.e.store.Quarantined()
	if err != nil {
		return err
	}
	records = slices.DeleteFunc(records, func(r index.QuarantineRecord) bool { return r.UID != a.uid })
	slices.SortFunc(records, func(x, y index.QuarantineRecord) int { return y.Time.Compare(x.Time) })
	most := a.e.o.Quota.Bytes / quarantineShare
	var bytes int64
	for i, r := range records {
		bytes += r.Bytes
		if i == 0 || i < maxQuarantined && (most == 0 || bytes <= most) {
			continue
		}
		if err := a.e.store.RemoveQuarantine(r.ID); err != nil {
			return err
		}
		a.e.log.Info("removed from quarantine to make room", "uid", a.uid, "path", r.Path)
	}
	return nil
}
