package cow

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"condafs/conda"
	"condafs/fault"
	"condafs/hashing"
	"condafs/index"
	"condafs/internal/failpoint"
)

// manifest is the redo log of one sealed path, sessions/ID/sealed/NAME and a suffix that says how far it has come:
//
//	.redo.tmp  it is written, and nothing has moved: the overlay is what counts
//	.redo      files are being moved; a daemon that dies is taken over by the next one, which moves the rest
//	.sealed    they have moved and the view shows them from below; the path waits to be published
//	.done      it is published; only keeps the content from being collected as garbage while the view shows it
//
// The names change while the view is locked, so that its client can have changed nothing of what a .redo is about. What it changes
// later makes a .sealed void: the view shows something else then.
//
// It is not synced. The kernel keeps it when the daemon dies. When the machine
// dies, a torn manifest is noticed by its checksum, and what is lost then is a
// package that was nowhere published yet: its client downloads it again.
type manifest struct {
	Path       []byte // a path need not be UTF-8
	Public     index.Entry
	PublicTree []byte `json:",omitempty"`
	Shown      index.Entry
	ShownTree  []byte       `json:",omitempty"`
	Base       *index.Entry `json:",omitempty"`
	Overlay    []manifestFile
}

// manifestFile is a file that moves from the overlay to the objects.
type manifestFile struct {
	Rel    []byte
	Digest hashing.Digest
}

const (
	tmpSuffix    = ".tmp"
	redoSuffix   = ".redo"
	sealedSuffix = ".sealed"
	doneSuffix   = ".done"
	keptSuffix   = ".kept" // of content that was given up for the head, and that the view shows
	goneSuffix   = ".gone" // holds a path whose deletion has been published, and nothing else
)

func (s *Session) sealedDir() string { return filepath.Join(s.dir(), "sealed") }

// writeManifest writes a manifest under its temporary name, and returns what mover.begin is to call it.
func (s *Session) writeManifest(p *part, it *item) (string, error) {
	m := manifest{Path: []byte(p.path), Public: p.public.entry, Shown: p.shown.entry, Base: it.base}
	if p.public.tree != nil {
		m.PublicTree, m.ShownTree = p.public.tree.Encode(), p.shown.tree.Encode()
	}
	for rel, d := range p.overlay {
		m.Overlay = append(m.Overlay, manifestFile{[]byte(rel), d})
	}
	body, err := json.Marshal(m)
	if err != nil {
		return "", fault.New("write manifest", p.path, fault.Other, err)
	}
	name := s.manifestName(p.path) + redoSuffix
	if err := os.MkdirAll(s.sealedDir(), 0o700); err != nil {
		return "", fault.New("write manifest", p.path, fault.Other, err)
	}
	tmp := name + tmpSuffix
	s.view.account.grow(int64(len(body)), 1)
	if err := os.WriteFile(tmp, append([]byte(hashing.Sum(body).String()+"\n"), body...), 0o600); err != nil {
		return "", errors.Join(fault.New("write manifest", p.path, fault.Other, err), removeManifest(tmp))
	}
	return name, failpoint.Err(failpoint.ManifestWritten, s.e.store.Dir())
}

// manifestName returns the file for a path, without its suffix.
func (s *Session) manifestName(path string) string {
	key := hashing.Sum([]byte(path))
	return filepath.Join(s.sealedDir(), hex.EncodeToString(key[:12]))
}

// writeDeletion keeps for the next daemon that a deletion has been published.
func (s *Session) writeDeletion(path string) error {
	name := s.manifestName(path) + goneSuffix
	err := os.MkdirAll(s.sealedDir(), 0o700)
	if err == nil {
		err = os.WriteFile(name+tmpSuffix, []byte(path), 0o600)
	}
	if err == nil {
		err = os.Rename(name+tmpSuffix, name)
	}
	if err != nil {
		return fault.New("note deletion", path, fault.Other, err)
	}
	return nil
}

// readDeletion reads what writeDeletion has written.
func readDeletion(name string) (path string, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return "", fault.New("read deletion", name, fault.Other, err)
	}
	return string(b), nil
}

// sealing is what a manifest is about.
type sealing struct {
	item    *item
	sealed  bool // what is left is to publish it
	shown   form // by the view
	overlay []manifestFile
}

// readSealing reads a manifest. It fails with fault.Corrupt if the file is torn.
func readSealing(name string) (*sealing, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fault.New("read manifest", name, fault.Other, err)
	}
	sum, body, _ := bytes.Cut(b, []byte("\n"))
	if string(sum) != hashing.Sum(body).String() {
		return nil, fault.New("read manifest", name, fault.Corrupt, errors.New("it is torn"))
	}
	var m manifest
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, fault.New("read manifest", name, fault.Corrupt, err)
	}
	path := string(m.Path)
	r := &sealing{
		item: &item{
			unit: conda.Classify(path, m.Public.Kind == index.KindTree), path: path,
			public: form{entry: m.Public}, base: m.Base, manifest: name, settled: strings.HasSuffix(name, doneSuffix),
		},
		sealed:  strings.HasSuffix(name, sealedSuffix),
		shown:   form{entry: m.Shown},
		overlay: m.Overlay,
	}
	if m.Public.Kind != index.KindTree {
		return r, nil
	}
	if r.item.public.tree, err = index.DecodeTree(m.PublicTree); err != nil {
		return nil, err
	}
	if r.shown.tree, err = index.DecodeTree(m.ShownTree); err != nil {
		return nil, err
	}
	return r, nil
}

// giveUpManifest notes that an item is not to be published, and goes on keeping its
// content: the view may show the rest of it. There may be several of a path.
func giveUpManifest(it *item) error {
	base := strings.TrimSuffix(it.manifest, filepath.Ext(it.manifest))
	return renameManifest(it, base+"-"+newID()+keptSuffix)
}

// sealManifest notes that an item's files have moved.
func sealManifest(it *item) error {
	return renameManifest(it, strings.TrimSuffix(it.manifest, redoSuffix)+sealedSuffix)
}

// settleManifest notes that the item is published.
func settleManifest(it *item) error {
	base, ok := strings.CutSuffix(it.manifest, sealedSuffix)
	if !ok {
		return nil
	}
	return renameManifest(it, base+doneSuffix)
}

func renameManifest(it *item, name string) error {
	if err := os.Rename(it.manifest, name); err != nil {
		return fault.New("rename manifest", it.manifest, fault.Other, err)
	}
	it.manifest = name
	return nil
}
