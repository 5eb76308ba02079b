package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// Link is the way from a channel to its clients. The zero Link is as fast as memory.
type Link struct {
	BytesPerSecond int           // for all clients together; 0: no limit
	Latency        time.Duration // before each answer
}

// limiter lets through what the link carries, nil everything.
func (l Link) limiter() *rate.Limiter {
	if l.BytesPerSecond == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(l.BytesPerSecond), linkChunk)
}

const linkChunk = 16 << 10 // what the link carries at a time

// server serves a channel on a loopback port, with range requests and ETags, and counts what it sends.
type server struct {
	url  string
	sent atomic.Int64
	http *http.Server
	done chan error
}

func serve(c *channel, link Link) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("demo: serve the channel: %w", err)
	}
	s := &server{url: "http://" + l.Addr().String(), done: make(chan error, 1)}
	contents := map[string][]byte{
		"/linux-64/repodata.json": c.repodata,
		// Nothing is there, but rattler insists on it.
		"/noarch/repodata.json": []byte(`{"info":{"subdir":"noarch"},"packages":{},"packages.conda":{},"repodata_version":1}`),
	}
	tags := map[string]string{}
	for name, data := range contents {
		tags[name] = sha256Hex(data)[:16]
	}
	for _, p := range c.packages {
		name := "/linux-64/" + p.record.Fn
		contents[name], tags[name] = p.archive, p.record.SHA256[:16]
	}
	limiter := link.limiter()
	s.http = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := contents[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		time.Sleep(link.Latency)
		w.Header().Set("ETag", `"`+tags[r.URL.Path]+`"`)
		http.ServeContent(&channelWriter{ResponseWriter: w, ctx: r.Context(), sent: &s.sent, limiter: limiter}, r, path.Base(r.URL.Path), packageTime, bytes.NewReader(data))
	})}
	go func() { s.done <- s.http.Serve(l) }()
	return s, nil
}

// channelWriter counts what it sends, and sends no more than the link carries.
type channelWriter struct {
	http.ResponseWriter
	ctx     context.Context
	sent    *atomic.Int64
	limiter *rate.Limiter // nil: none
}

func (w *channelWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		chunk := b
		if w.limiter != nil {
			chunk = b[:min(len(b), linkChunk)]
			if err := w.limiter.WaitN(w.ctx, len(chunk)); err != nil {
				return n, err
			}
		}
		var m int
		m, err = w.ResponseWriter.Write(chunk)
		w.sent.Add(int64(m))
		n, b = n+m, b[m:]
	}
	return n, err
}

func (s *server) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if serveErr := <-s.done; err == nil && !errors.Is(serveErr, http.ErrServerClosed) {
		err = serveErr
	}
	return err
}
