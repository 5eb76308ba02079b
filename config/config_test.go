package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"condafs/fault"
)

var keys = []Key{{"store", "X_STORE", Text}, {"allow_other", "X_ALLOW_OTHER", Flag}, {"trust", "X_TRUST", List}, {"limit", "X_LIMIT", List}}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestLookup(t *testing.T) {
	name := file(t, "store = '/s' # where\nallow_other = false\ntrust = ['a', 7]\n[limit]\nopen = 5\nbytes = \"1GiB\"\n")
	f, err := Read(name, keys)
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"X_STORE": "/e", "X_TRUST": "b,c", "X_ALLOW_OTHER": ""}
	getenv := func(k string) string { return env[k] }
	for i, want := range []struct {
		values []string
		from   Source
		where  string
	}{
		{[]string{"/e"}, Environment, "$X_STORE"}, {[]string{"false"}, FromFile, name}, {[]string{"b", "c"}, Environment, "$X_TRUST"},
		{[]string{"bytes=1GiB", "open=5"}, FromFile, name},
	} {
		v, from, where := Lookup(keys[i], f, getenv)
		if !slices.Equal(v, want.values) || from != want.from || where != want.where {
			t.Errorf("%s: %q %s %s", keys[i].Name, v, from, where)
		}
	}
	env = nil
	if v, from, _ := Lookup(keys[2], f, getenv); !slices.Equal(v, []string{"a", "7"}) || from != FromFile {
		t.Errorf("%q %s", v, from)
	}
	if v, from, where := Lookup(keys[0], nil, getenv); v != nil || from != Default || where != "" {
		t.Errorf("%q %s %s", v, from, where)
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		"alow_other = true":            `unknown key "alow_other"; did you mean allow_other?`,
		"allow-other = true":           "did you mean allow_other?",
		"[mount]\nstore = '/s'":        `unknown key "mount"; known are allow_other, limit, store, trust`,
		"allow_other = 'yes'":          "allow_other: it needs true or false",
		"allow_other = 1":              "allow_other: it needs true or false",
		"store = true":                 "store: it needs a text",
		"store = ['/s']":               "store: it needs a text",
		"store = 1.5":                  "store: it needs texts",
		"trust = 'a'":                  "",
		"trust = [['a']]":              "trust: it needs texts",
		"limit = {open = {x = 1}}":     "limit: it needs texts",
		"store = '/a'\nstore = '/b'\n": "line 2: ",
		"store = /a":                   "line 1: ",
		"\xff":                         "line 1: ",
	} {
		_, err := Read(file(t, text), keys)
		if want == "" {
			if err != nil {
				t.Errorf("%q: %v", text, err)
			}
			continue
		}
		if !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestMissingFile(t *testing.T) {
	none := filepath.Join(t.TempDir(), "none")
	if _, err := Read(none, keys); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if f, err := ReadIfThere(none, keys); f != nil || err != nil {
		t.Errorf("%v %v", f, err)
	}
	if _, err := ReadIfThere(t.TempDir(), keys); err == nil {
		t.Error("a directory is no configuration")
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"store", "stroe", 2}, {"share", "shelf", 3}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("%q, %q: %d", c.a, c.b, got)
		}
	}
}
