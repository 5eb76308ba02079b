package conda

import "bytes"

// UnionURLs merges two versions of a list of addresses that started from base.
// Nothing that either of them lists is lost. Lines are unique in the result;
// where one comes again, its last place counts, for conda takes the last line
// that fits a file name. What ours added comes last.
func UnionURLs(base, theirs, ours []byte) []byte {
	common := lines(base)
	mine := lines(ours)
	list := lines(theirs)
	if hasPrefix(mine, common) {
		mine = mine[len(common):]
		list = append(missing(list, common), list...)
	} else {
		mine = missing(list, mine)
	}
	return join(append(list, mine...))
}

// missing returns the lines of b that a does not have.
func missing(a, b [][]byte) [][]byte {
	have := make(map[string]bool, len(a))
	for _, l := range a {
		have[string(l)] = true
	}
	var m [][]byte
	for _, l := range b {
		if !have[string(l)] {
			m = append(m, l)
		}
	}
	return m
}

func lines(b []byte) [][]byte {
	var list [][]byte
	for l := range bytes.SplitSeq(b, []byte("\n")) {
		if l = bytes.TrimSpace(l); len(l) > 0 {
			list = append(list, l)
		}
	}
	return list
}

func hasPrefix(list, prefix [][]byte) bool {
	if len(list) < len(prefix) {
		return false
	}
	for i := range prefix {
		if !bytes.Equal(list[i], prefix[i]) {
			return false
		}
	}
	return true
}

// join writes each line once, at its last place.
func join(list [][]byte) []byte {
	last := make(map[string]int, len(list))
	for i, l := range list {
		last[string(l)] = i
	}
	var out []byte
	for i, l := range list {
		if last[string(l)] == i {
			out = append(append(out, l...), '\n')
		}
	}
	return out
}
