package cow

import (
	"testing"

	"condafs/conda"
	"condafs/hashing"
	"condafs/index"
)

// entries to merge: letters are contents
func pkg(content string, trust conda.Trust, owner uint32) *index.Entry {
	return &index.Entry{
		Kind: index.KindTree, Content: hashing.Sum([]byte(content)), Trust: uint8(trust), Owner: owner,
		SHA256: "archive of " + content[:1],
	}
}

func TestRulePackage(t *testing.T) {
	const me, other = 1000, 1001
	v, c := conda.TrustVerified, conda.TrustConsistent
	a, b, d := pkg("a", v, me), pkg("b", v, me), pkg("d", v, me)
	a2 := pkg("a, but not quite", v, me)
	for _, test := range []struct {
		name               string
		base, theirs, ours *index.Entry
		want               ruling
	}{
		{"new", nil, nil, a, publish},
		{"new, and somebody had the same", nil, a, a, same},
		{"new, and somebody had the same with less trust", nil, pkg("a", c, me), a, publish},
		{"new, with less trust than the same of somebody", nil, a, pkg("a", c, me), same},
		{"new, and I had another", nil, b, a, firstWins},
		{"new, and another user had another", nil, pkg("b", v, other), a, apart},
		{"new, and it differs for one archive", nil, a2, a, conflict},
		{"new, and it differs for one archive of another user", nil, pkg("a2", v, other), a, conflict},
		{"new without a known archive", nil, &index.Entry{Kind: index.KindTree, Owner: me}, &index.Entry{Kind: index.KindTree, Content: hashing.Sum(nil)}, firstWins},
		{"untouched", a, a, a, same},
		{"untouched, deleted since", a, nil, a, unchanged},
		{"untouched, replaced since", a, b, a, unchanged},
		{"more trust", pkg("a", c, me), pkg("a", c, me), a, publish},
		{"more trust, deleted since", pkg("a", c, me), nil, a, unchanged},
		{"replaced", a, a, b, publish},
		{"replaced, deleted since", a, nil, b, publish},
		{"replaced, replaced alike since", a, b, b, same},
		{"replaced, replaced otherwise since", a, d, b, firstWins},
		{"deleted", a, a, nil, remove},
		{"deleted, deleted since", a, nil, nil, unchanged},
		{"deleted, replaced since", a, b, nil, refused},
		{"deleted, was never there", nil, nil, nil, unchanged},
		{"deleted, appeared since", nil, a, nil, unchanged},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := rulePackage(test.base, test.theirs, test.ours, me); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

// TestRulesHold goes through all combinations of three contents, absence and
// two times, and checks what must hold for each rule.
func TestRulesHold(t *testing.T) {
	const me = 1000
	choices := []*index.Entry{nil}
	for _, content := range []string{"a", "b", "c"} {
		for _, mtime := range []int64{1, 2} {
			choices = append(choices, &index.Entry{Kind: index.KindFile, Digest: hashing.Sum([]byte(content)), Mtime: mtime, Owner: me})
		}
	}
	asGroup := func(e *index.Entry) group {
		if e == nil {
			return nil
		}
		return group{"x.json": *e}
	}
	for _, base := range choices {
		for _, theirs := range choices {
			for _, ours := range choices {
				file := ruleFile(base, theirs, ours)
				for name, got := range map[string]ruling{
					"package": rulePackage(base, theirs, ours, me),
					"file":    file,
					"group":   ruleGroup(asGroup(base), asGroup(theirs), asGroup(ours)),
				} {
					fail := func(why string) {
						t.Errorf("%s: base %+v, theirs %+v, ours %+v: %v, but %s", name, base, theirs, ours, got, why)
					}
					if name == "group" && got != file {
						fail("one file is ruled otherwise: " + file.String())
					}
					if ours == nil && got == publish || ours != nil && (got == remove || got == refused) {
						fail("that is about something else")
					}
					if got == remove && !sameContent(base, theirs) {
						fail("it is not what the session saw")
					}
					if (got == publish || got == remove) && ours != nil && sameContent(base, ours) {
						fail("the session did not change it")
					}
					if theirs == nil && ours != nil && !sameContent(base, ours) && got != publish {
						fail("a commit is lost without a cause")
					}
					if theirs != nil && ours != nil && !sameContent(base, theirs) && !sameContent(theirs, ours) && name == "package" && got == publish {
						fail("another commit is lost")
					}
				}
			}
		}
	}
}

func TestRuleGroupIsWhole(t *testing.T) {
	file := func(content string, mtime int64) index.Entry {
		return index.Entry{Kind: index.KindFile, Digest: hashing.Sum([]byte(content)), Mtime: mtime}
	}
	base := group{"x.json": file("1", 1), "x.info.json": file("i1", 1)}
	onlyState := group{"x.json": file("1", 1), "x.info.json": file("i2", 9)}
	newer := group{"x.json": file("2", 5), "x.info.json": file("i3", 5)}
	for _, test := range []struct {
		name               string
		base, theirs, ours group
		want               ruling
	}{
		{"one member changed", base, base, onlyState, publish},
		{"both changed, ours is younger", base, newer, onlyState, publish},
		{"both changed, theirs is younger", base, onlyState, newer, firstWins},
		{"a member is gone", base, base, group{"x.json": file("1", 1)}, publish},
		{"all are gone", base, base, nil, remove},
		{"all are gone, changed since", base, newer, nil, refused},
		{"all are gone on both sides", base, nil, group{}, unchanged},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := ruleGroup(test.base, test.theirs, test.ours); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}
