package posix

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"condafs/internal/longrun"
)

var fsxSeed = rand.Uint64N(1 << 40)

// TestFsx makes random changes to a file by all means there are, and compares what it reads with what must be there.
// With -long, rounds with new seeds follow each other.
func TestFsx(t *testing.T) {
	program, operations := fromCrate(t, "fsx", "0.3.2"), 20_000
	if !longrun.Wanted() {
		operations = 1_000
	}
	configs, err := filepath.Glob("testdata/fsx-*.toml")
	if err != nil || len(configs) == 0 {
		t.Fatal(configs, err)
	}
	t.Logf("the first seed is %d", fsxSeed)
	compare(t, "fsx", func(p *place) (results, error) {
		r := results{}
		began, rounds := time.Now(), 0
		for ; rounds == 0 || time.Since(began) < *long; rounds++ {
			seed := fsxSeed + uint64(rounds)
			for _, config := range configs {
				name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(config), "fsx-"), ".toml")
				cmd := p.command(fmt.Sprintf("fsx-%s-%d", name, seed), program, "-f", testdata(t, filepath.Base(config)),
					"-S", strconv.FormatUint(seed, 10), "-N", strconv.Itoa(operations), "-P", scratch, "file")
				if out, err := cmd.CombinedOutput(); err != nil {
					r[name] = outcome{"fail", fmt.Sprintf("seed %d: %v\n%s", seed, err, tail(string(out)))}
					return r, nil
				}
				r[name] = outcome{verdict: "pass"}
			}
		}
		t.Logf("%s: %d operations", p.name, rounds*len(configs)*operations)
		return r, nil
	})
}
