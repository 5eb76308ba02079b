package posix

import (
	"regexp"
	"testing"
)

func TestPjdfstest(t *testing.T) {
	program := fromCrate(t, "pjdfstest", "0.2.2")
	compare(t, "pjdfstest", func(p *place) (results, error) {
		return output(p.command("pjdfstest", program, "-c", testdata(t, "pjdfstest.toml"), "-p", ".", "-s", "/dev/shm"), func(out string) results {
			return lines(out, pjdfstestLine, map[string]string{"ok": "pass", "FAILED": "fail", "skipped": "skip"})
		})
	})
}

var pjdfstestLine = regexp.MustCompile(`(?m)^(?P<case>[a-z_]\S*::\S+) +(?P<verdict>ok|FAILED|skipped)$`)
