package main

import (
	"errors"
	"fmt"
	"math"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"condafs/cow"
	"condafs/fault"
)

// policy is what the flags of mount say about other users of the host.
type policy struct {
	share  string
	trust  []string // users, by name or number
	limits []string // NAME=NUMBER
}

// defaultQuota bounds users other than root and the owner. It is generous: it is there
// for programs that run wild, and for users who mean harm.
var defaultQuota = cow.Quota{Sessions: 512, Open: 4096, Bytes: 100 << 30, Files: 500_000}

func (p *policy) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.share, "share", string(cow.ShareTrusted), "`whose` verified packages all users get: trusted (root's, the owner's and --trust's), all or none")
	f.StringSliceVar(&p.trust, "trust", nil, "`users`, by name or number, whose verified packages all users get")
	f.StringSliceVar(&p.limits, "limit", nil, "what each other user may have, as in `sessions=512,open=4096,bytes=100GiB,files=500000`, the defaults; 0: any number")
	if err := cmd.RegisterFlagCompletionFunc("share", cobra.FixedCompletions(sharings(), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is defined above
	}
}

// take takes share, trust or limit as an option of -o.
func (p *policy) take(name, value string) {
	switch name {
	case "share":
		p.share = value
	case "trust":
		p.trust = append(p.trust, value)
	case "limit":
		p.limits = append(p.limits, value)
	}
}

// resolve checks what was said, and tells what it means.
func (p *policy) resolve() (cow.Sharing, []uint32, cow.Quota, error) {
	sharing, err := p.sharing()
	if err != nil {
		return "", nil, cow.Quota{}, err
	}
	trusted, err := p.trusted()
	if err != nil {
		return "", nil, cow.Quota{}, err
	}
	quota, err := p.quota()
	return sharing, trusted, quota, err
}

// args are the flags that say the same.
func (p *policy) args() []string {
	args := []string{"--share", p.share, "--trust", "", "--limit", ""}
	for _, u := range p.trust {
		args = append(args, "--trust", u)
	}
	for _, l := range p.limits {
		args = append(args, "--limit", l)
	}
	return args
}

func sharings() []string {
	var names []string
	for _, s := range cow.Sharings {
		names = append(names, string(s))
	}
	return names
}

// sharing checks and returns the rule.
func (p *policy) sharing() (cow.Sharing, error) {
	if err := checkChoice("mount", "share", p.share, sharings()); err != nil {
		return "", err
	}
	return cow.Sharing(p.share), nil
}

// trusted returns the numbers of the users.
func (p *policy) trusted() ([]uint32, error) {
	var uids []uint32
	for _, name := range p.trust {
		number := name
		if u, err := user.Lookup(name); err == nil {
			number = u.Uid
		}
		uid, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return nil, fault.New("mount", "", fault.Usage, fmt.Errorf("--trust %q is no user", name))
		}
		uids = append(uids, uint32(uid))
	}
	return uids, nil
}

// quota returns the bounds.
func (p *policy) quota() (cow.Quota, error) {
	q := defaultQuota
	for _, l := range p.limits {
		name, value, _ := strings.Cut(l, "=")
		if !slices.Contains(cow.Limits, cow.Limit(name)) {
			return q, fault.New("mount", "", fault.Usage, fmt.Errorf("--limit %q is none of %s", name, joined(cow.Limits)))
		}
		n, err := parseNumber(value)
		if err != nil {
			return q, fault.New("mount", "", fault.Usage, fmt.Errorf("--limit %s: %w", l, err))
		}
		*q.Of(cow.Limit(name)) = n
	}
	return q, nil
}

func joined(limits []cow.Limit) string {
	var names []string
	for _, l := range limits {
		names = append(names, string(l))
	}
	return strings.Join(names, ", ")
}

// units are what numbers may end in; longer ones come first.
var units = []struct {
	name   string
	factor int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"k", 1e3}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40},
}

// parseNumber reads a number as in 4096, 50GB or 100GiB.
func parseNumber(s string) (int64, error) {
	factor := int64(1)
	for _, u := range units {
		if digits, ok := strings.CutSuffix(s, u.name); ok {
			s, factor = digits, u.factor
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return 0, errors.New("it needs a number, as in 4096, 50GB or 100GiB")
	}
	return n * factor, nil
}
