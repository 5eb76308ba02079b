package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"condafs/fault"
	"condafs/trim"
)

// spaceLimits are what flags say about how much may stay in a store.
type spaceLimits struct {
	maxSize, minFree, maxAge string // "" is no limit
}

func (s *spaceLimits) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.maxSize, "max-size", "", "let packages that were not used for longest go until the store has this `size`, as in 50GiB")
	f.StringVar(&s.minFree, "min-free", "", "and until this `size` is free on its file system")
	f.StringVar(&s.maxAge, "max-age", "", "and those that were not used for this `time`, as in 30d or 12w")
}

// take takes max_size, min_free or max_age as an option of -o.
func (s *spaceLimits) take(name, value string) {
	switch name {
	case "max_size":
		s.maxSize = value
	case "min_free":
		s.minFree = value
	case "max_age":
		s.maxAge = value
	}
}

// resolve checks what was said. Use is known to a day, so that an age is two days at least.
func (s *spaceLimits) resolve(op string) (l trim.Limits, err error) {
	bad := func(flag, value string, err error) (trim.Limits, error) {
		return trim.Limits{}, fault.New(op, "", fault.Usage, fmt.Errorf("%s %q: %w", flag, value, err))
	}
	if s.maxSize != "" {
		if l.MaxSize, err = parseNumber(s.maxSize); err != nil {
			return bad("--max-size", s.maxSize, err)
		}
	}
	if s.minFree != "" {
		if l.MinFree, err = parseNumber(s.minFree); err != nil {
			return bad("--min-free", s.minFree, err)
		}
	}
	if s.maxAge != "" {
		if l.MaxAge, err = parseDays(s.maxAge); err == nil && l.MaxAge < 48*time.Hour {
			err = fmt.Errorf("use is known to a day, so that it is 2d at least")
		}
		if err != nil {
			return bad("--max-age", s.maxAge, err)
		}
	}
	return l, nil
}

// args are the flags that say the same, also that there is no limit: the environment may say otherwise.
func (s *spaceLimits) args() []string {
	return []string{"--max-size", s.maxSize, "--min-free", s.minFree, "--max-age", s.maxAge}
}
