package conda

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Record is what repodata or a package's own metadata say about a package.
// Fields that the source does not have are empty.
type Record struct {
	Name        string
	Version     string
	Build       string
	BuildNumber int
	Subdir      string // platform directory of the channel, "linux-64"
	Fn          string // file name of the archive
	URL         string
	Channel     string
	SHA256      string // of the archive, lower-case hex
	MD5         string // of the archive, lower-case hex
	Size        int64  // of the archive, in bytes; 0 when unknown
}

// Dist returns "name-version-build".
func (r *Record) Dist() string { return r.Name + "-" + r.Version + "-" + r.Build }

// IndexPath and PathsPath are a package's own metadata, relative to its root.
const (
	IndexPath = "info/index.json"
	PathsPath = "info/paths.json"
)

// ParseRecord reads info/repodata_record.json, which clients write.
func ParseRecord(r io.Reader) (*Record, error) { return parseRecord(CompletionMarker, r) }

// ParseIndex reads info/index.json, which is part of the package. It holds no
// hashes: those are of the archive that holds it.
func ParseIndex(r io.Reader) (*Record, error) {
	rec, err := parseRecord(IndexPath, r)
	if err != nil {
		return nil, err
	}
	rec.SHA256, rec.MD5, rec.Size = "", "", 0
	return rec, nil
}

func parseRecord(name string, r io.Reader) (*Record, error) {
	b, err := readBounded(name, r, maxRecord)
	if err != nil {
		return nil, err
	}
	return decodeRecord(name, b)
}

// rawRecord takes null for every field, and numbers where some tools write them.
type rawRecord struct {
	Name        *string         `json:"name"`
	Version     *string         `json:"version"`
	Build       *string         `json:"build"`
	BuildString *string         `json:"build_string"` // mamba and old condas
	BuildNumber *int            `json:"build_number"`
	Subdir      *string         `json:"subdir"`
	Fn          *string         `json:"fn"`
	URL         *string         `json:"url"`
	Channel     json.RawMessage `json:"channel"` // a string, but some tools nest an object
	SHA256      *string         `json:"sha256"`
	MD5         *string         `json:"md5"`
	Size        *int64          `json:"size"`
}

func decodeRecord(name string, b []byte) (*Record, error) {
	const op = "parse record"
	var raw rawRecord
	if err := json.Unmarshal(b, &raw); err != nil {
		return nil, corrupt(op, name, "%w", err)
	}
	rec := &Record{
		Name: str(raw.Name), Version: str(raw.Version), Build: str(raw.Build),
		Subdir: str(raw.Subdir), Fn: str(raw.Fn), URL: str(raw.URL),
		SHA256: strings.ToLower(str(raw.SHA256)), MD5: strings.ToLower(str(raw.MD5)),
	}
	if rec.Build == "" {
		rec.Build = str(raw.BuildString)
	}
	if raw.BuildNumber != nil {
		rec.BuildNumber = *raw.BuildNumber
	}
	if raw.Size != nil {
		rec.Size = *raw.Size
	}
	if len(raw.Channel) > 0 && raw.Channel[0] == '"' {
		if err := json.Unmarshal(raw.Channel, &rec.Channel); err != nil {
			return nil, corrupt(op, name, "channel: %w", err)
		}
	}
	if err := rec.check(op, name); err != nil {
		return nil, err
	}
	return rec, nil
}

func (r *Record) check(op, name string) error {
	for _, f := range []struct{ field, value string }{{"name", r.Name}, {"version", r.Version}, {"build", r.Build}} {
		if f.value == "" {
			return corrupt(op, name, "%s is missing", f.field)
		}
	}
	if _, _, _, ok := SplitDist(r.Dist()); !ok {
		return corrupt(op, name, "%q is no package", r.Dist())
	}
	if err := checkHex(r.SHA256, 32); err != nil {
		return corrupt(op, name, "sha256: %w", err)
	}
	if err := checkHex(r.MD5, 16); err != nil {
		return corrupt(op, name, "md5: %w", err)
	}
	if r.Size < 0 {
		return corrupt(op, name, "size is %d", r.Size)
	}
	return nil
}

// checkHex takes the empty string for "unknown".
func checkHex(s string, size int) error {
	if s == "" {
		return nil
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return err
	}
	if len(b) != size {
		return fmt.Errorf("%d bytes instead of %d", len(b), size)
	}
	return nil
}

func str(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// readBounded reads all of r, or fails when that is more than limit bytes.
func readBounded(name string, r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, readFailure("read", name, err)
	}
	if int64(len(b)) > limit {
		return nil, corrupt("read", name, "longer than %d bytes", limit)
	}
	return b, nil
}
