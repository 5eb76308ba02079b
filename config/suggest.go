package config

import (
	"fmt"
	"slices"
	"strings"
)

// unknown is a key that there is not.
type unknown struct {
	name string
	keys []Key
}

func (u *unknown) Error() string { return fmt.Sprintf("unknown key %q", u.name) }

// hint names the key that was meant, or all of them.
func (u *unknown) hint() string {
	best, least := "", len(u.name)/3+2 // more typos than these are another word
	var all []string
	for _, k := range u.keys {
		all = append(all, k.Name)
		// With a dash, as the flags have it, it is the same word.
		if d := distance(strings.ReplaceAll(u.name, "-", "_"), k.Name); d < least {
			best, least = k.Name, d
		}
	}
	if best != "" {
		return "did you mean " + best + "?"
	}
	slices.Sort(all)
	return "known are " + strings.Join(all, ", ")
}

// distance is how many letters must be put in, taken out or changed to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
