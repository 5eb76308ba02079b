package posix

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"condafs/internal/longrun"
)

// TestFio writes at random and verifies the checksums of all blocks, by several engines.
func TestFio(t *testing.T) {
	program, size := fromSystem(t, "fio"), "--size=64m"
	if !longrun.Wanted() {
		size = "--size=4m"
	}
	compare(t, "fio", func(p *place) (results, error) {
		cmd := p.command("fio", program, "--output-format=json", size, testdata(t, "verify.fio"))
		var unreadable error
		r, err := output(cmd, func(out string) results {
			r := results{}
			var report struct {
				Jobs []struct {
					Name  string `json:"jobname"`
					Error int
				}
			}
			_, text, _ := strings.Cut(out, "\n{")
			if strings.HasPrefix(out, "{") {
				text = out[1:]
			}
			unreadable = json.NewDecoder(strings.NewReader("{" + text)).Decode(&report)
			for _, j := range report.Jobs {
				r[j.Name] = outcome{verdict: "pass"}
				if j.Error != 0 {
					r[j.Name] = outcome{"fail", fmt.Sprintf("errno %d: %s", j.Error, tail(out[:min(len(out), 1000)]))}
				}
			}
			return r
		})
		if err == nil {
			err = unreadable
		}
		return r, err
	})
}
