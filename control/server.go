package control

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Backend is the daemon behind a [Server]. It is safe for concurrent use.
type Backend interface {
	// As returns the API as p may use it: what others own is left out of lists.
	// The server has checked by then that p may make the request at all.
	As(p Peer) API
	// SessionOwner returns the uid of a live session.
	SessionOwner(id string) (uid uint32, ok bool)
}

// Server answers requests on one socket.
type Server struct {
	backend Backend
	owner   uint32
	http    *http.Server
	limit   *limits
	long    work
}

// work counts what takes long and is under way, by what it is.
type work struct {
	mu sync.Mutex
	of map[string]int
}

func (w *work) begin(what string) (end func()) {
	w.add(what, 1)
	return func() { w.add(what, -1) }
}

func (w *work) add(what string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.of == nil {
		w.of = make(map[string]int)
	}
	w.of[what] += n
}

// Working names what is under way of the work that takes long: verify, gc, import, ….
func (s *Server) Working() []string {
	s.long.mu.Lock()
	defer s.long.mu.Unlock()
	var names []string
	for _, what := range slices.Sorted(maps.Keys(s.long.of)) {
		if s.long.of[what] > 0 {
			names = append(names, what)
		}
	}
	return names
}

// NewServer makes a server that lets owner and root do everything. Other users are
// let in only with others: that they can reach the socket is not enough. log takes
// what goes wrong on connections.
func NewServer(b Backend, owner uint32, others bool, log *slog.Logger) *Server {
	s := &Server{backend: b, owner: owner, limit: newLimits(owner, others)}
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if a, ok := c.(*admitted); ok {
				return withPeer(ctx, a.peer)
			}
			return ctx
		},
	}
	return s
}

// Serve answers on l, which it closes, until Shutdown or Close. It returns nil
// after those.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(&gate{Listener: l, limits: s.limit})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops to listen and waits for the requests under way.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }

// Close drops all connections, which cancels what they asked for.
func (s *Server) Close() error { return s.http.Close() }

func (s *Server) mayAll(p Peer) bool { return p.UID == 0 || p.UID == s.owner }
