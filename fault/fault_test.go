package fault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestErrorText(t *testing.T) {
	cause := errors.New("boom")
	tests := []struct {
		name string
		err  *Error
		want string
	}{
		{"all", New("open store", "/s", Busy, cause).WithHint("stop the other daemon"), "open store /s: boom; stop the other daemon"},
		{"no name", New("sync", "", IO, cause), "sync: boom"},
		{"no cause", New("open", "/s", Version, nil), "open /s: version"},
		{"nothing", New("open", "/s", Other, nil), "open /s"},
		{"only a cause", New("", "", Other, cause), "boom"},
		{"path said once", New("read", "/s/x", Other, &fs.PathError{Op: "open", Path: "/s/x", Err: syscall.ENOENT}), "read /s/x: open: no such file or directory"},
		{"other path kept", New("read", "/s", Other, &fs.PathError{Op: "open", Path: "/s/x", Err: syscall.ENOENT}), "read /s: open /s/x: no such file or directory"},
		{"one line", New("read", "a\nb", Other, errors.New("x\r\ny\n")), "read a | b: x | y"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.err.Error(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestWithHintCopies(t *testing.T) {
	e := New("op", "n", Busy, nil)
	if h := e.WithHint("do it"); h == e || e.Hint != "" || h.Hint != "do it" {
		t.Errorf("WithHint changed its receiver: %v", e)
	}
}

func TestKindAndErrno(t *testing.T) {
	_, missing := os.Open(filepath.Join(t.TempDir(), "none"))
	tests := []struct {
		name  string
		err   error
		kind  Kind
		errno syscall.Errno
	}{
		{"nil", nil, Other, 0},
		{"plain", io.ErrUnexpectedEOF, Other, syscall.EIO},
		{"missing file", missing, NotFound, syscall.ENOENT},
		{"missing, without errno", fs.ErrNotExist, NotFound, syscall.ENOENT},
		{"full", syscall.ENOSPC, Full, syscall.ENOSPC},
		{"quota keeps its errno", New("write", "f", Other, syscall.EDQUOT), Full, syscall.EDQUOT},
		{"kind of ours", New("commit", "p", Stale, nil), Stale, syscall.ESTALE},
		{"outermost kind wins", New("a", "", Busy, New("b", "", Full, nil)), Busy, syscall.EBUSY},
		{"other asks its cause", New("a", "", Other, New("b", "", Full, nil)), Full, syscall.ENOSPC},
		{"wrapped by fmt", fmt.Errorf("x: %w", New("b", "", ReadOnly, nil)), ReadOnly, syscall.EROFS},
		{"joined", errors.Join(io.EOF, New("b", "", TooMany, nil)), TooMany, syscall.ENFILE},
		{"corrupt hides its errno", New("open blob", "ab", Corrupt, missing), Corrupt, syscall.EIO},
		{"canceled", context.Canceled, Canceled, syscall.EINTR},
		{"deadline", context.DeadlineExceeded, Canceled, syscall.EINTR},
		{"permission", fs.ErrPermission, Permission, syscall.EACCES},
		{"exists", fs.ErrExist, Exists, syscall.EEXIST},
		{"unsupported", errors.ErrUnsupported, Unsupported, syscall.EOPNOTSUPP},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := KindOf(tt.err); got != tt.kind {
				t.Errorf("KindOf = %v, want %v", got, tt.kind)
			}
			if got := Errno(tt.err); got != tt.errno {
				t.Errorf("Errno = %v, want %v", got, tt.errno)
			}
			if tt.err != nil && !Is(tt.err, tt.kind) {
				t.Errorf("Is(%v) = false", tt.kind)
			}
		})
	}
	if Is(nil, Other) {
		t.Error("nil is an error of kind Other")
	}
}

func TestEveryKindHasANameAndAnErrno(t *testing.T) {
	for k := Other; k <= TooMany; k++ {
		if s := k.String(); s == "" || strings.HasPrefix(s, "kind ") {
			t.Errorf("kind %d has no name", k)
		}
		if _, ok := errnos[k]; !ok && k != Other {
			t.Errorf("%v has no errno", k)
		}
	}
	if got := Kind(200).String(); got != "kind 200" {
		t.Errorf("unknown kind: %q", got)
	}
}
