package index

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"condafs/fault"
)

// scrubName is the file that tells how far the scrub has come. It is none of the database,
// so that nothing in there is written without need, and nothing of a damaged one is read.
const scrubName = "scrub.json"

// ScrubState is what must be known of the scrub when the store is opened again.
type ScrubState struct {
	Pass *ScrubPass `json:"pass,omitempty"` // the one under way
	Last *ScrubPass `json:"last,omitempty"` // the last that came to its end
}

// ScrubPass is one reading of all of the store.
type ScrubPass struct {
	Started  time.Time `json:"started"`
	Finished time.Time `json:"finished,omitzero"`
	Part     int       `json:"part"`     // the next of ScrubParts
	Blobs    int64     `json:"blobs"`    // that were read
	Bytes    int64     `json:"bytes"`    // that were read, of everything
	Found    int64     `json:"found"`    // problems
	Mended   int64     `json:"mended"`   // of these, without loss
	Lost     int64     `json:"lost"`     // whose content nobody has: what needs it has left head
	Removed  int64     `json:"removed"`  // names that left head
	Left     int64     `json:"left"`     // that a repair can do nothing about
	Problems []Problem `json:"problems"` // what became of them; the first scrubProblems
}

// scrubProblems bounds what is remembered of a pass one by one.
const scrubProblems = 100

// Note adds a problem, if there is room to remember it.
func (p *ScrubPass) Note(problem Problem) {
	if len(p.Problems) < scrubProblems {
		problem.Paths = problem.Paths[:min(len(problem.Paths), scrubProblems)]
		p.Problems = append(p.Problems, problem)
	}
}

// ScrubState reads what the scrub has written down last. What cannot be understood is
// taken for nothing: the scrub begins anew.
func (s *Store) ScrubState() (ScrubState, error) {
	var st ScrubState
	b, err := os.ReadFile(filepath.Join(s.dir, scrubName))
	if errors.Is(err, fs.ErrNotExist) {
		return st, nil
	}
	if err != nil {
		return st, fault.New("read the scrub's state", s.dir, fault.Other, err)
	}
	if err := json.Unmarshal(b, &st); err != nil || !st.Pass.sensible() || !st.Last.sensible() {
		s.log.Warn("the scrub's state is damaged; it begins anew", "err", err)
		return ScrubState{}, nil
	}
	return st, nil
}

func (p *ScrubPass) sensible() bool { return p == nil || p.Part >= 0 && p.Part <= ScrubParts }

// SetScrubState writes the state down, durably.
func (s *Store) SetScrubState(st ScrubState) error {
	b, err := json.Marshal(st)
	if err == nil {
		err = s.replaceFile(scrubName, b)
	}
	if err != nil {
		return fault.New("write the scrub's state", s.dir, fault.Other, err)
	}
	return nil
}

// replaceFile gives a file of the store new content, all of it or nothing.
func (s *Store) replaceFile(name string, content []byte) error {
	f, err := os.CreateTemp(s.StagingDir(), "state-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(s.dir)
}
