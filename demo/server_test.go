package demo

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Those who download at the same time share the link.
func TestLink(t *testing.T) {
	const each = 10 * linkChunk
	content := bytes.Repeat([]byte("x"), each)
	for _, c := range []struct {
		link    Link
		clients int
		want    time.Duration // the first chunk waits for nothing
	}{
		{Link{}, 2, 0},
		{Link{BytesPerSecond: linkChunk}, 1, 9 * time.Second},
		{Link{BytesPerSecond: 2 * linkChunk}, 3, 14500 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			limiter, started := c.link.limiter(), time.Now()
			var sent atomic.Int64
			var clients sync.WaitGroup
			for range c.clients {
				clients.Go(func() {
					r := httptest.NewRecorder()
					w := &channelWriter{ResponseWriter: r, ctx: t.Context(), sent: &sent, limiter: limiter}
					if n, err := w.Write(content); n != each || err != nil || r.Body.Len() != each {
						t.Errorf("%d of %d bytes were written: %v", n, each, err)
					}
				})
			}
			clients.Wait()
			if took := time.Since(started).Round(time.Millisecond); took != c.want || sent.Load() != int64(c.clients*each) {
				t.Errorf("%+v: %d bytes took %v, want %v", c.link, sent.Load(), took, c.want)
			}
		})
	}
}

// A client that hangs up does not use the link any more.
func TestLinkOfNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var sent atomic.Int64
	w := &channelWriter{ResponseWriter: httptest.NewRecorder(), ctx: ctx, sent: &sent, limiter: Link{BytesPerSecond: 1}.limiter()}
	if n, err := w.Write(make([]byte, 3*linkChunk)); n > linkChunk || !errors.Is(err, context.Canceled) {
		t.Errorf("%d bytes, %v", n, err)
	}
}
