package posix

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"condafs/internal/longrun"
)

// stressors are stress-ng's for file systems that work below --temp-path.
const stressors = "access chattr chdir chmod chown copy-file dentry dir dirdeep dirmany dnotify dup fallocate fcntl fiemap " +
	"file-ioctl filename flock fpunch fsize fstat getdent handle hdd inode-flags inotify io iomix lease link locka lockf lockofd " +
	"mknod open rename symlink sync-file touch utime xattr"

// quickStressors are those that get something done within two seconds, all at once, on a busy machine.
const quickStressors = "access dentry dir fcntl flock fstat hdd iomix open touch"

// TestStress takes the place of fsstress: ten stressors at once, or all of them with -long, each verifying what it reads.
func TestStress(t *testing.T) {
	program := fromSystem(t, "stress-ng")
	names, together, seconds := strings.Fields(stressors), 10, 10
	if !longrun.Wanted() {
		names, seconds = strings.Fields(quickStressors), 2
	}
	if *long > 0 {
		together, seconds = len(names), int(long.Seconds())
	}
	compare(t, "stress-ng", func(p *place) (results, error) {
		all := results{}
		run := func(seconds int, group []string) error {
			args := []string{program, "--verify", "--metrics", "--temp-path", ".", "--timeout", strconv.Itoa(seconds), "--hdd-bytes", "16m",
				"--iomix-bytes", "8m", "--fallocate-bytes", "16m", "--sync-file-bytes", "8m", "--filename-opts", "posix"}
			for _, s := range group {
				args = append(args, "--"+s, "1")
			}
			r, err := output(p.command("stress-ng-"+strconv.Itoa(len(group))+"-"+group[0], args...), func(out string) results {
				if *long > 0 {
					t.Logf("%s:\n%s", p.name, strings.Join(stressLine.FindAllString(out, -1), "\n"))
				}
				return stressResults(out)
			})
			maps.Copy(all, r)
			return err
		}
		for group := range slices.Chunk(names, together) {
			if err := run(seconds, group); err != nil {
				return nil, err
			}
		}
		// On a busy machine, one of many may have come to nothing.
		for _, name := range slices.Sorted(maps.Keys(all)) {
			if all[name].verdict == "skip" {
				if err := run(max(seconds, 10), []string{name}); err != nil {
					return nil, err
				}
			}
		}
		return all, nil
	})
}

// A stressor that did nothing was skipped.
func stressResults(out string) results {
	r := results{}
	for _, m := range stressLine.FindAllStringSubmatch(out, -1) {
		r[m[1]] = outcome{verdict: "pass"}
		if m[2] == "0" {
			r[m[1]] = outcome{verdict: "skip"}
		}
	}
	for _, m := range stressFailure.FindAllStringSubmatch(out, -1) {
		r[m[1]] = outcome{"fail", m[0]}
	}
	return r
}

var (
	stressLine    = regexp.MustCompile(`(?m)^stress-ng: metrc: \[\d+\] ([a-z-]+) +(\d+) .*$`)
	stressFailure = regexp.MustCompile(`(?m)^stress-ng: (?:fail|error): +\[\d+\] ([a-z-]+): .*$`)
)
