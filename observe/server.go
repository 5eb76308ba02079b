// Package observe serves what a daemon tells of itself over HTTP, where that is wanted: figures for Prometheus, and a page for
// people. It only ever answers questions.
//
// The figures are for who can connect. The page shows what its viewer may see by the control socket, too: the store's owner and
// root see everything, other users of a shared mount what is theirs and what all share, and nobody else anything. Who that is
// the kernel says, also over TCP as long as it stays on the machine.
package observe

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"condafs/control"
	"condafs/fault"
	"condafs/metrics"
	"condafs/page"
)

// Options say where and what to serve.
type Options struct {
	Address Address
	Backend control.Backend
	Owner   uint32 // of the store
	Others  bool   // other users may use the mount
	Logger  *slog.Logger
}

// Server serves. It is safe for concurrent use.
type Server struct {
	http     *http.Server
	listener net.Listener
	done     chan struct{}
	log      *slog.Logger
}

const (
	maxConns    = 64 // of all together: they are the daemon's descriptors
	maxWorking  = 4  // requests that are worked on at a time
	answerLimit = 30 * time.Second
)

// Start listens and serves in the background.
func Start(o Options) (*Server, error) {
	h, err := handler(o)
	if err != nil {
		return nil, err
	}
	l, err := listen(o.Address, o.Others)
	if err != nil {
		return nil, err
	}
	s := &Server{listener: l, done: make(chan struct{}), log: o.Logger, http: &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      answerLimit,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		ConnContext:       withConn,
	}}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(limited(l, maxConns)); !errors.Is(err, http.ErrServerClosed) {
			o.Logger.Error("metrics are served no more", "address", o.Address.String(), "err", err.Error())
		}
	}()
	return s, nil
}

// Addr is where it listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Close ends the service at once; a scrape that is cut short is made again.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	return err
}

func listen(a Address, others bool) (net.Listener, error) {
	const op = "serve metrics at"
	if a.Network == "unix" {
		// One that a dead daemon has left behind; what is no socket stays.
		if fi, err := os.Lstat(a.Name); err == nil && fi.Mode().Type() == fs.ModeSocket {
			if c, err := net.Dial("unix", a.Name); err == nil {
				return nil, fault.New(op, a.String(), fault.Busy, errors.Join(errors.New("somebody listens there"), c.Close()))
			}
			if err := os.Remove(a.Name); err != nil {
				return nil, fault.New(op, a.String(), fault.Other, err)
			}
		}
	}
	l, err := net.Listen(a.Network, a.Name)
	if err != nil {
		return nil, fault.New(op, a.String(), fault.KindOf(err), cause(err))
	}
	if a.Network == "unix" {
		mode := fs.FileMode(0o600)
		if others {
			mode = 0o666
		}
		if err := os.Chmod(a.Name, mode); err != nil {
			return nil, fault.New(op, a.String(), fault.Other, errors.Join(err, l.Close()))
		}
	}
	return l, nil
}

func cause(err error) error {
	var o *net.OpError
	if errors.As(err, &o) {
		return o.Err
	}
	return err
}

func handler(o Options) (http.Handler, error) {
	all := o.Backend.As(control.Peer{UID: o.Owner})
	registry, err := metrics.NewRegistry(all)
	if err != nil {
		return nil, fault.New("serve metrics at", o.Address.String(), fault.Other, err)
	}
	figures := promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn), MaxRequestsInFlight: maxWorking, Timeout: answerLimit,
	})
	m := http.NewServeMux()
	m.Handle("GET /metrics", figures)
	m.Handle("GET /", o.forViewers(page.Handler()))
	return secured(m), nil
}

// forViewers gives the page what its viewer may see, or refuses.
func (o Options) forViewers(h http.Handler) http.Handler {
	working := make(chan struct{}, maxWorking)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !named(r.Host) {
			http.Error(w, "ask for this page by the machine's address or as localhost", http.StatusForbidden)
			return
		}
		p := viewer(r.Context())
		all := p.UID == 0 || p.UID == o.Owner
		if !all && (!o.Others || p == stranger) {
			http.Error(w, "this page is for the users of the mount, on this machine", http.StatusForbidden)
			return
		}
		select {
		case working <- struct{}{}:
			defer func() { <-working }()
		case <-r.Context().Done():
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), answerLimit)
		defer cancel()
		h.ServeHTTP(w, r.WithContext(page.For(ctx, page.Viewer{API: o.Backend.As(p), All: all})))
	})
}

// named reports whether a page was asked for by an address, or as this machine. Another name could be one that somebody else's
// web site has just let point here, to have the viewer's browser read the page for it.
func named(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return host == "localhost" || host == "condafs" || host == ""
}

// secured forbids what the answers do not need.
func secured(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hd := w.Header()
		hd.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		hd.Set("X-Content-Type-Options", "nosniff")
		hd.Set("Referrer-Policy", "no-referrer")
		hd.Set("Cross-Origin-Resource-Policy", "same-origin")
		hd.Set("Cache-Control", "no-store")
		h.ServeHTTP(w, r)
	})
}
