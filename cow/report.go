package cow

import (
	"condafs/conda"
	"condafs/index"
)

// Report says what became of a session's changes in one commit.
type Report struct {
	// Seq is the head after the commit; it did not move if Committed is empty.
	Seq index.Seq `json:"seq"`
	// Committed lists what everybody else can see now.
	Committed []UnitReport `json:"committed,omitempty"`
	// Dropped lists changes that were thrown away, and why.
	Dropped []Note `json:"dropped,omitempty"`
	// Pending lists what stays in the overlay, and why it could not be committed.
	Pending []Note `json:"pending,omitempty"`
	// Quarantined lists what failed its checks and was put aside.
	Quarantined []Note `json:"quarantined,omitempty"`
}

// UnitReport is one thing that was committed.
type UnitReport struct {
	Path    string         `json:"path"`
	Kind    conda.UnitKind `json:"kind"`
	Trust   conda.Trust    `json:"trust"`
	Deleted bool           `json:"deleted,omitempty"`
}

// Note is a path and a sentence about it.
type Note struct {
	Path string `json:"path"`
	Why  string `json:"why"`
}
