package index

import "context"

// Stats are figures about a store, for people.
type Stats struct {
	UUID         string `json:"uuid"`
	Format       int    `json:"format"`
	Head         Seq    `json:"head"`
	Packages     int64  `json:"packages"`      // trees in head, by path
	Files        int64  `json:"files"`         // plain files in head
	LogicalBytes int64  `json:"logical_bytes"` // what head would take without sharing
	Blobs        int64  `json:"blobs"`         // exact after GC, near otherwise
	ObjectBytes  int64  `json:"object_bytes"`  // theirs
	Snapshots    int    `json:"snapshots"`     // states that somebody keeps, head apart
	Sessions     int    `json:"sessions"`      // records
	Quarantined  int    `json:"quarantined"`   // records
}

// Size is about what the blobs take.
func (s *Store) Size() int64 { return s.bytes.Load() }

// Stats looks at every entry of head, and at no blob.
func (s *Store) Stats() (Stats, error) {
	head := s.PinHead()
	defer head.Release()
	out := Stats{
		UUID: s.id.UUID, Format: s.id.Format, Head: head.Seq(),
		Blobs: s.blobs.Load(), ObjectBytes: s.bytes.Load(), Snapshots: len(s.pins.live()) - 1,
	}
	err := s.eachVersion(context.Background(), []Seq{head.Seq()}, func(_ string, e *Entry) error {
		switch e.Kind {
		case KindTree:
			out.Packages++
			out.LogicalBytes += e.Size
		case KindFile:
			out.Files++
			out.LogicalBytes += e.Size
		}
		return nil
	})
	if err != nil {
		return Stats{}, err
	}
	sessions, err := s.Sessions()
	if err != nil {
		return Stats{}, err
	}
	quarantined, err := s.Quarantined()
	if err != nil {
		return Stats{}, err
	}
	out.Sessions, out.Quarantined = len(sessions), len(quarantined)
	return out, nil
}
