package failpoint

import (
	_ "embed"
	"regexp"
)

//go:embed points.go
var source string

// All lists every point, for tests that want to have reached all of them.
func All() []Point {
	var all []Point
	for _, m := range regexp.MustCompile(`Point = "([a-z.]+)"`).FindAllStringSubmatch(source, -1) {
		all = append(all, Point(m[1]))
	}
	return all
}
