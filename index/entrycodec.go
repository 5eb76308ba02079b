package index

import (
	"encoding/binary"
	"errors"
	"fmt"

	"condafs/fault"
)

// entryVersion is the first byte of an encoded entry.
const entryVersion = 1

func encodeEntry(e *Entry) []byte {
	b := make([]byte, 0, 128+len(e.Link)+len(e.SHA256))
	b = append(b, entryVersion, byte(e.Kind), e.Trust)
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendUvarint(b, uint64(e.Owner))
	b = binary.AppendVarint(b, e.Mtime)
	b = binary.AppendUvarint(b, uint64(e.Size))
	b = appendString(b, e.SHA256)
	switch e.Kind {
	case KindFile:
		b = append(b, e.Digest[:]...)
	case KindTree:
		b = append(b, e.Digest[:]...)
		b = append(b, e.Content[:]...)
	case KindSymlink:
		b = appendString(b, e.Link)
	}
	return b
}

// decodeEntry takes what encodeEntry gives for a valid entry, and nothing else.
func decodeEntry(b []byte) (Entry, error) {
	d := decoder{rest: string(b)}
	if v := d.byte(); d.err == nil && v != entryVersion {
		d.fail(fmt.Errorf("version %d is not known", v))
	}
	e := Entry{Kind: Kind(d.byte()), Trust: d.byte(), Mode: d.uint32(), Owner: d.uint32(), Mtime: d.varint(), Size: d.size(), SHA256: d.string()}
	switch e.Kind {
	case KindFile:
		e.Digest = d.digest()
	case KindTree:
		e.Digest = d.digest()
		e.Content = d.digest()
	case KindSymlink:
		e.Link = d.string()
	}
	if d.err == nil && d.rest != "" {
		d.fail(errors.New("bytes after the end"))
	}
	if d.err == nil {
		d.err = checkEntry(&e)
	}
	if d.err != nil {
		return Entry{}, fault.New("decode entry", "", fault.Corrupt, d.err)
	}
	return e, nil
}

func checkEntry(e *Entry) error {
	if e.Mode > 0o7777 {
		return fmt.Errorf("mode %#o is more than permission bits", e.Mode)
	}
	if e.Size < 0 {
		return errors.New("the size is negative")
	}
	if len(e.SHA256) != 0 && len(e.SHA256) != 64 {
		return fmt.Errorf("%.80q is no SHA-256", e.SHA256)
	}
	hasDigest := e.Kind == KindFile || e.Kind == KindTree
	switch {
	case e.Kind < KindDir || e.Kind > KindTree:
		return fmt.Errorf("kind %d", e.Kind)
	case hasDigest == e.Digest.IsZero():
		return fmt.Errorf("a %v with digest %v", e.Kind, e.Digest)
	case e.Kind != KindTree && !e.Content.IsZero():
		return fmt.Errorf("a %v with a content digest", e.Kind)
	case e.Kind == KindSymlink:
		return checkLink("entry", e.Link)
	case e.Link != "":
		return fmt.Errorf("a %v with a link target", e.Kind)
	}
	return nil
}
