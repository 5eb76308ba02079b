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
)

// server serves a channel on a loopback port, with range requests and ETags, and counts what it sends.
type server struct {
	url  string
	sent atomic.Int64
	http *http.Server
	done chan error
}

func serve(c *channel) (*server, error) {
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
	s.http = &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := contents[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", `"`+tags[r.URL.Path]+`"`)
		http.ServeContent(countingWriter{w, &s.sent}, r, path.Base(r.URL.Path), packageTime, bytes.NewReader(data))
	})}
	go func() { s.done <- s.http.Serve(l) }()
	return s, nil
}

type countingWriter struct {
	http.ResponseWriter
	sent *atomic.Int64
}

func (w countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.sent.Add(int64(n))
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
