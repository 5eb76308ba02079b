package proc

import (
	"strings"
	"testing"
)

func TestParseStat(t *testing.T) {
	rest := " Z 1 2 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654" + strings.Repeat(" 0", 29) + " 256\n"
	for _, test := range []struct {
		name, in string
		start    uint64
		ok       bool
	}{
		{"plain", "7 (cat)" + rest, 987654, true},
		{"a name that looks like the rest", "7 (a) R 1 1 1) (b)" + rest, 987654, true},
		{"empty", "", 0, false},
		{"cut off", "7 (cat) S 1 2 3", 0, false},
		{"no number", "7 (cat)" + strings.Replace(rest, "987654", "x", 1), 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			st, err := parseStat([]byte(test.in))
			if (err == nil) != test.ok || st.start != test.start || test.ok && (!st.zombie || st.exit != 256) {
				t.Errorf("%+v, error %v", st, err)
			}
		})
	}
}

func TestParseStatus(t *testing.T) {
	good := "Name:\tcat\\nUid: 0\nTgid:\t7\nPid:\t8\nPPid:\t3\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n"
	info, err := parseStatus([]byte(good))
	if err != nil || info != (Info{ID: ID{PID: 7}, PPID: 3, UID: 2, GID: 6}) {
		t.Errorf("%+v, %v", info, err)
	}
	for _, bad := range []string{"", "Tgid:\t7\n", strings.Replace(good, "Uid:\t1\t2", "Uid:\t1\tx", 1), strings.Replace(good, "PPid:\t3", "PPid:", 1)} {
		if _, err := parseStatus([]byte(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}
