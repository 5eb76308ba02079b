package conda

import (
	"slices"
	"strings"
	"testing"
)

func TestUnionURLs(t *testing.T) {
	tests := []struct{ name, base, theirs, ours, want string }{
		{"nothing", "", "", "", ""},
		{"ours new", "", "", "a\n", "a\n"},
		{"both append", "a\n", "a\nb\n", "a\nc\n", "a\nb\nc\n"},
		{"same append", "a\n", "a\nb\n", "a\nb\n", "a\nb\n"},
		{"no newline at the end", "a", "a\nb", "a\nc", "a\nb\nc\n"},
		{"Windows line ends and blank lines", "", "a\r\n\r\n", " b \n", "a\nb\n"},
		{"they emptied it", "a\n", "", "a\nb\n", "a\nb\n"},
		{"we emptied it", "a\n", "a\nb\n", "", "a\nb\n"},
		{"we wrote it anew", "a\nb\n", "a\nb\nc\n", "b\nd\n", "a\nb\nc\nd\n"},
		{"we use an old line again", "a\nb\n", "a\nb\nc\n", "a\nb\na\n", "b\nc\na\n"},
		{"no base", "", "a\nb\n", "b\nc\n", "a\nb\nc\n"},
	}
	for _, tt := range tests {
		got := string(UnionURLs([]byte(tt.base), []byte(tt.theirs), []byte(tt.ours)))
		if got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzUnionURLs(f *testing.F) {
	f.Add("a\n", "a\nb\n", "a\nc")
	f.Add("a\nb", "b\na", "\r\n\n a")
	f.Fuzz(func(t *testing.T, base, theirs, ours string) {
		u := UnionURLs([]byte(base), []byte(theirs), []byte(ours))
		list := lines(u)
		have := map[string]bool{}
		for _, l := range list {
			if have[string(l)] {
				t.Errorf("%q is there twice in %q", l, u)
			}
			have[string(l)] = true
		}
		want := map[string]bool{}
		for _, in := range []string{theirs, ours} {
			for _, l := range lines([]byte(in)) {
				want[string(l)] = true
				if !have[string(l)] {
					t.Errorf("%q is lost in %q", l, u)
				}
			}
		}
		for _, l := range lines([]byte(base)) {
			want[string(l)] = true
		}
		for l := range have {
			if !want[l] {
				t.Errorf("%q came from nowhere", l)
			}
		}
		if len(u) > 0 && u[len(u)-1] != '\n' {
			t.Errorf("%q has no end", u)
		}
		if again := UnionURLs(u, u, u); !slices.Equal(again, u) {
			t.Errorf("%q became %q", u, again)
		}
	})
}

func TestRewriteSessionPaths(t *testing.T) {
	tests := []struct{ mount, id, in, want string }{
		{"/cache", "ab12", `{"x":"/cache/.sessions/ab12/pkgs/a-1-0"}`, `{"x":"/cache/pkgs/a-1-0"}`},
		{"/cache/", "ab12", "file:///cache/.sessions/ab12/pkgs/x.conda\n", "file:///cache/pkgs/x.conda\n"},
		{"/cache", "ab12", "/cache/.sessions/ab12", "/cache"},
		{"/cache", "ab12", "/cache/.sessions/ab123/x /cache/.sessions/ab12/y", "/cache/.sessions/ab123/x /cache/y"},
		{"/cache", "ab12", "/cache/.sessions/other/x", "/cache/.sessions/other/x"},
		{"/cache", "", "/cache/.sessions//x", "/cache/.sessions//x"},
		{"/", "ab12", "/.sessions/ab12/pkgs", "/pkgs"},
		{"/c", "a", "/c/.sessions/a/c/.sessions/a/", "/c/c/"},
	}
	for _, tt := range tests {
		got, changed := RewriteSessionPaths([]byte(tt.in), tt.mount, tt.id)
		if string(got) != tt.want || changed != (tt.in != tt.want) {
			t.Errorf("%q became %q (%v), want %q", tt.in, got, changed, tt.want)
		}
	}
}

func TestRewritable(t *testing.T) {
	for p, want := range map[string]bool{
		"pkgs/urls.txt": true, "pkgs/a-1-0/info/repodata_record.json": true, "pkgs/cache/ab.info.json": true,
		"pkgs/cache/ab.state.json": true, "pkgs/cache/ab.json": false, "pkgs/a-1-0/info/index.json": false,
		"pkgs/a-1-0/lib/info/repodata_record.json": false, "pkgs/a-1-0.conda": false, "pkgs/x": false,
	} {
		if Rewritable(p) != want {
			t.Errorf("Rewritable(%q) = %v", p, !want)
		}
	}
}

func FuzzRewriteSessionPaths(f *testing.F) {
	f.Add("/m", "id", "x/m/.sessions/id/y")
	f.Fuzz(func(t *testing.T, mount, id, in string) {
		got, changed := RewriteSessionPaths([]byte(in), mount, id)
		if changed == (string(got) == in) {
			t.Errorf("changed is %v for %q and %q", changed, in, got)
		}
		if len(got) > len(in) || strings.Count(in, "\n") < strings.Count(string(got), "\n") {
			t.Errorf("%q became %q", in, got)
		}
	})
}
