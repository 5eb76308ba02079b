package fs

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/fault"
)

func TestParseOptions(t *testing.T) {
	tests := []struct {
		name   string
		args   []string
		want   options
		failed bool
	}{
		{"none", nil, options{}, false},
		{"empty", []string{""}, options{}, false},
		{"fstab's own", []string{"rw,defaults,noauto,nofail,_netdev,x-systemd.automount,comment=x"}, options{}, false},
		{"allow_other", []string{"allow_other,default_permissions"}, options{allowOther: true}, false},
		{"several", []string{"ro", "noexec,max_read=65536"}, options{kernel: []string{"ro", "noexec"}, maxRead: 65536}, false},
		{"times", []string{"noatime"}, options{flags: unix.MS_NOATIME}, false},
		{"unknown", []string{"ro,frobnicate"}, options{}, true},
		{"unknown with value", []string{"uid=5"}, options{}, true},
		{"bad number", []string{"max_read=lots"}, options{}, true},
		{"small number", []string{"max_read=1"}, options{}, true},
		{"another source", []string{"fsname=evil"}, options{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseOptions(tt.args)
			if tt.failed {
				wantKind(t, err, fault.Usage, "mount option")
				return
			}
			must(t, err)
			if got.allowOther != tt.want.allowOther || got.maxRead != tt.want.maxRead || got.flags != tt.want.flags || !slices.Equal(got.kernel, tt.want.kernel) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}
