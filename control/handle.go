package control

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"condafs/fault"
)

const (
	// writeTimeout bounds how long an answer waits for a client that does not read.
	writeTimeout = 30 * time.Second
	// progressEvery is the least time between two lines of progress.
	progressEvery = 100 * time.Millisecond
)

// admit identifies the peer, applies the rule and reads the body.
func admit[Q request](s *Server, may rule, w http.ResponseWriter, r *http.Request) (API, Q, error) {
	var q Q
	p, ok := peerFrom(r.Context())
	if !ok {
		return nil, q, fault.New("control", r.URL.Path, fault.Permission, nil)
	}
	if err := may(s, p, r); err != nil {
		return nil, q, err
	}
	q, err := decode[Q](http.MaxBytesReader(w, r.Body, maxBody+1))
	if err != nil {
		return nil, q, err
	}
	// The server's read timeout was for the request. Left in place it would cancel the
	// context of work that takes longer.
	if err := http.NewResponseController(w).SetReadDeadline(time.Time{}); err != nil {
		return nil, q, err
	}
	return s.backend.As(p), q, nil
}

// answer handles a request whose answer is one JSON value.
func answer[Q request, T any](s *Server, may rule, f func(context.Context, API, *http.Request, Q) (*T, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api, q, err := admit[Q](s, may, w, r)
		if err != nil {
			writeError(w, err)
			return
		}
		if r.Method == http.MethodGet {
			p, _ := peerFrom(r.Context())
			done, err := s.limit.read(r.Context(), p.UID)
			if err != nil {
				writeError(w, err)
				return
			}
			defer done()
		}
		v, err := f(r.Context(), api, r, q)
		if err != nil {
			writeError(w, err)
			return
		}
		writeLine(w, http.StatusOK, line[T]{Result: v})
	})
}

// stream handles a request that is answered by JSON lines.
func stream[Q request, T any](s *Server, may rule, f func(API, context.Context, Q, ProgressFunc) (*T, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api, q, err := admit[Q](s, may, w, r)
		if err != nil {
			writeError(w, err)
			return
		}
		defer s.long.begin(strings.TrimPrefix(r.URL.Path, prefix+"/"))()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		l := &liner{w: w, rc: http.NewResponseController(w), failed: cancel}
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.WriteHeader(http.StatusOK)
		v, err := f(api, ctx, q, l.progress)
		if err != nil {
			l.write(line[T]{Error: toWire(err)})
			return
		}
		l.write(line[T]{Result: v})
	})
}

// liner writes the lines of one streamed answer. It is safe for concurrent use.
type liner struct {
	mu     sync.Mutex
	w      http.ResponseWriter
	rc     *http.ResponseController
	last   time.Time
	phase  string
	broken bool
	failed context.CancelFunc // the client is gone: stop the work
}

// progress drops what comes faster than anybody can look, unless a phase begins.
func (l *liner) progress(p Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if p.Phase == l.phase && now.Sub(l.last) < progressEvery {
		return
	}
	l.last, l.phase = now, p.Phase
	l.writeLocked(line[empty]{Progress: &p})
}

func (l *liner) write(v any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writeLocked(v)
}

func (l *liner) writeLocked(v any) {
	if l.broken {
		return
	}
	err := l.rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		err = json.NewEncoder(l.w).Encode(v)
	}
	if err == nil {
		err = l.rc.Flush()
	}
	if err != nil {
		l.broken = true
		l.failed()
	}
}

func writeError(w http.ResponseWriter, err error) {
	writeLine(w, httpStatus(err), line[empty]{Error: toWire(err)})
}

// writeLine sends one JSON value. An error here means that the client is gone, and
// there is nobody left to tell.
func writeLine(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
