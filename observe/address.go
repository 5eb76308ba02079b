package observe

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"condafs/fault"
)

// Address is where to serve.
type Address struct {
	Network string // tcp or unix
	Name    string // host:port, or an absolute path
}

// ParseAddress reads HOST:PORT, :PORT or PORT, which are this machine only, or the path of a Unix socket, with unix: before it
// or not. Another host than this machine's own has to be said.
func ParseAddress(s string) (Address, error) {
	bad := func(err error) (Address, error) {
		return Address{}, fault.New("read address", strconv.Quote(s), fault.Usage, err).
			WithHint("give a port, as in 9191, HOST:PORT, or the path of a socket, as in unix:/run/condafs/metrics.sock")
	}
	if path, ok := strings.CutPrefix(s, "unix:"); ok || strings.HasPrefix(s, "/") {
		switch {
		case !filepath.IsAbs(path):
			return bad(errors.New("the socket's path is not absolute"))
		case len(path) > 100: // the kernel has room for 108
			return bad(errors.New("the socket's path is longer than 100 bytes"))
		}
		return Address{"unix", filepath.Clean(path)}, nil
	}
	if !strings.Contains(s, ":") {
		s = ":" + s
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return bad(err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return bad(fmt.Errorf("%q is no port", port))
	} else {
		port = strconv.FormatUint(n, 10)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	return Address{"tcp", net.JoinHostPort(host, port)}, nil
}

// String is what ParseAddress reads.
func (a Address) String() string {
	if a.Network == "unix" {
		return "unix:" + a.Name
	}
	return a.Name
}

// URL is where a browser finds it; for a Unix socket there is none, and it is what String returns.
func (a Address) URL() string {
	if a.Network == "unix" {
		return a.String()
	}
	return "http://" + a.Name + "/"
}
