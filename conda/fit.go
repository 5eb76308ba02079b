package conda

import (
	"encoding/hex"
	"fmt"

	"condafs/hashing"
)

// Fit says whether an archive is the one that a record describes.
type Fit uint8

const (
	FitUnknown Fit = iota // the record carries no hash to compare
	FitYes
	FitNo
)

// Fits compares an archive with what the record says about it; sums must have
// SHA-256 and MD5. If the answer is not FitYes, why says so.
//
// All that the record carries must agree. A record that had the SHA-256 of one
// archive and the MD5 of another would be proven by the one, and then taken for
// the other by conda, which compares MD5 and size. MD5 proves an archive only
// together with its size.
func (r *Record) Fits(sums hashing.Sums) (fit Fit, why string) {
	if r.Size != 0 && r.Size != sums.Size {
		return FitNo, fmt.Sprintf("its archive has %d bytes, its record says %d", sums.Size, r.Size)
	}
	if r.SHA256 != "" && (sums.Has&hashing.SHA256 == 0 || hex.EncodeToString(sums.SHA256[:]) != r.SHA256) {
		return FitNo, "its archive has another SHA-256 than its record says"
	}
	if r.MD5 != "" && (sums.Has&hashing.MD5 == 0 || hex.EncodeToString(sums.MD5[:]) != r.MD5) {
		return FitNo, "its archive has another MD5 than its record says"
	}
	if r.SHA256 == "" && (r.MD5 == "" || r.Size == 0) {
		return FitUnknown, "its record does not carry the archive's hash"
	}
	return FitYes, ""
}
