package conda

import (
	"bytes"
	"testing"
)

func TestStripCredentials(t *testing.T) {
	for in, want := range map[string]string{
		`{"url": "https://u:p@host:8080/t/tk-1-2/ch/linux-64/a-1-0.conda", "channel": "https://host/t/tk-1-2/ch"}`: `{"url": "https://host:8080/ch/linux-64/a-1-0.conda", "channel": "https://host/ch"}`,
		`"https://conda.anaconda.org/t/tk-1/conda-forge"`:                                                          `"https://conda.anaconda.org/conda-forge"`,
		`"https://host/t/tk-1"`:                                 `"https://host"`,
		`"https://host/api/t/tk-1/x/t/y/z"`:                     `"https://host/api/x/t/y/z"`,
		`"https:\/\/u:p@host\/t\/tk-1\/ch"`:                     `"https:\/\/host\/ch"`,
		`"https://user@with@at@host/ch"`:                        `"https://host/ch"`,
		`"file:///t/x/y" "https://host/a@b"`:                    `"file:///t/x/y" "https://host/a@b"`,
		`"s3://key:secret@bucket/ch?x=a@b"`:                     `"s3://bucket/ch?x=a@b"`,
		`{"license": "a @ b: c/t/d", "url": "https://host/ch"}`: `{"license": "a @ b: c/t/d", "url": "https://host/ch"}`,
		``: ``,
	} {
		got, changed := StripCredentials([]byte(in))
		if string(got) != want || changed != (in != want) {
			t.Errorf("%s became %s (%v), want %s", in, got, changed, want)
		}
	}
}

func FuzzStripCredentials(f *testing.F) {
	f.Add([]byte(`{"url": "https://u:p@host/t/tk/ch/a-1-0.conda"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		got, changed := StripCredentials(b)
		if !bytes.Equal(in, b) {
			t.Errorf("%q was changed in place", in)
		}
		if len(got) > len(b) || changed == bytes.Equal(got, b) {
			t.Errorf("%q became %q (%v)", b, got, changed)
		}
	})
}
