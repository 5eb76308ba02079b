package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"condafs/fault"
)

// scrubbing is what the flags of mount say about the scrub.
type scrubbing struct {
	rate  string
	every string
}

func (s *scrubbing) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.rate, "scrub", "10M", "read all of the store in the background, at this `rate` in bytes a second, or off")
	f.StringVar(&s.every, "scrub-every", "7d", "the `time` from one such reading to the next, as in 12h, 2d or 4w")
	if err := cmd.RegisterFlagCompletionFunc("scrub", cobra.FixedCompletions([]string{"off", "1M", "10M", "100M"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is defined above
	}
	if err := cmd.RegisterFlagCompletionFunc("scrub-every", cobra.FixedCompletions([]string{"1d", "7d", "4w"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is defined above
	}
}

// take takes scrub or scrub_every as an option of -o.
func (s *scrubbing) take(name, value string) {
	if name == "scrub" {
		s.rate = value
		return
	}
	s.every = value
}

// resolve checks what was said. A rate of 0 is off.
func (s *scrubbing) resolve() (rate int64, every time.Duration, err error) {
	if s.rate != "off" {
		if rate, err = parseNumber(strings.TrimSuffix(s.rate, "/s")); err == nil && rate == 0 {
			err = errors.New("it is off, or a number of bytes a second, as in 10M")
		}
		if err != nil {
			return 0, 0, fault.New("mount", "", fault.Usage, fmt.Errorf("--scrub %q: %w", s.rate, err))
		}
	}
	if every, err = parseDays(s.every); err != nil {
		return 0, 0, fault.New("mount", "", fault.Usage, fmt.Errorf("--scrub-every %q: %w", s.every, err))
	}
	return rate, every, nil
}

// args are the flags that say the same.
func (s *scrubbing) args() []string { return []string{"--scrub", s.rate, "--scrub-every", s.every} }

// parseDays reads a time of more than none, as in 90m, 12h, 2d or 4w.
func parseDays(s string) (time.Duration, error) {
	bad := errors.New("it needs a time, as in 12h, 2d or 4w")
	for _, u := range []struct {
		name string
		days int64
	}{{"d", 1}, {"w", 7}} {
		digits, ok := strings.CutSuffix(s, u.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n <= 0 || n > 36500/u.days {
			return 0, bad
		}
		return time.Duration(n*u.days) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, bad
	}
	return d, nil
}
