package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"condafs/fault"
)

// Client asks a daemon. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

var _ API = (*Client)(nil)

// NewClient returns a client of the daemon that listens at socket. It does not
// connect yet.
func NewClient(socket string) *Client {
	d := net.Dialer{Timeout: 10 * time.Second}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		},
		DisableCompression: true,
		// Each request has a connection of its own: one that is kept could end just when it is
		// used again, because another program takes the daemon's place.
		DisableKeepAlives: true,
	}}}
}

// Socket returns the path that the client connects to.
func (c *Client) Socket() string { return c.socket }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c *Client) Status(ctx context.Context) (*Status, error) {
	return ask[Status](ctx, c, http.MethodGet, "/status", nil, nil)
}

func (c *Client) Activity(ctx context.Context) (*Activity, error) {
	return ask[Activity](ctx, c, http.MethodGet, "/activity", nil, nil)
}

func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	return list[Session](ctx, c, "/sessions")
}

func (c *Client) Start(ctx context.Context, r StartRequest) (*Started, error) {
	return ask[Started](ctx, c, http.MethodPost, "/sessions", r, nil)
}

func (c *Client) End(ctx context.Context, id string, r EndRequest) (*Report, error) {
	return ask[Report](ctx, c, http.MethodPost, "/sessions/"+url.PathEscape(id)+"/end", r, nil)
}

func (c *Client) Commit(ctx context.Context, id string) (*Report, error) {
	return ask[Report](ctx, c, http.MethodPost, "/sessions/"+url.PathEscape(id)+"/commit", nil, nil)
}

func (c *Client) Discard(ctx context.Context, id string) error {
	_, err := ask[empty](ctx, c, http.MethodPost, "/sessions/"+url.PathEscape(id)+"/discard", nil, nil)
	return err
}

func (c *Client) Packages(ctx context.Context) ([]Package, error) {
	return list[Package](ctx, c, "/packages")
}

func (c *Client) Package(ctx context.Context, name string) (*PackageFiles, error) {
	if err := CheckPackageName(name); err != nil {
		return nil, fault.New("list", name, fault.Usage, err)
	}
	return ask[PackageFiles](ctx, c, http.MethodGet, "/packages/"+url.PathEscape(name), nil, nil)
}

func (c *Client) Log(ctx context.Context, limit int) ([]Commit, error) {
	return list[Commit](ctx, c, "/log?limit="+strconv.Itoa(limit))
}

func (c *Client) Verify(ctx context.Context, r VerifyRequest, f ProgressFunc) (*VerifyReport, error) {
	return ask[VerifyReport](ctx, c, http.MethodPost, "/verify", r, f)
}

func (c *Client) Repair(ctx context.Context, r RepairRequest, f ProgressFunc) (*RepairReport, error) {
	return ask[RepairReport](ctx, c, http.MethodPost, "/repair", r, f)
}

func (c *Client) Scrub(ctx context.Context, r ScrubRequest, f ProgressFunc) (*ScrubPass, error) {
	return ask[ScrubPass](ctx, c, http.MethodPost, "/scrub", r, f)
}

func (c *Client) GC(ctx context.Context, r GCRequest, f ProgressFunc) (*GCReport, error) {
	return ask[GCReport](ctx, c, http.MethodPost, "/gc", r, f)
}

func (c *Client) Import(ctx context.Context, r ImportRequest, f ProgressFunc) (*ImportReport, error) {
	return ask[ImportReport](ctx, c, http.MethodPost, "/import", r, f)
}

func (c *Client) Export(ctx context.Context, r ExportRequest, f ProgressFunc) (*ExportReport, error) {
	return ask[ExportReport](ctx, c, http.MethodPost, "/export", r, f)
}

func (c *Client) Upgrade(ctx context.Context, r UpgradeRequest, f ProgressFunc) (*Upgrade, error) {
	return ask[Upgrade](ctx, c, http.MethodPost, "/upgrade", r, f)
}

func (c *Client) Upgraded(ctx context.Context, id string) (*Upgrade, error) {
	return ask[Upgrade](ctx, c, http.MethodGet, "/upgrade/"+url.PathEscape(id), nil, nil)
}

func (c *Client) Stop(ctx context.Context, r StopRequest, f ProgressFunc) (*Stopped, error) {
	return ask[Stopped](ctx, c, http.MethodPost, "/stop", r, f)
}

func list[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	l, err := ask[[]T](ctx, c, http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, err
	}
	return *l, nil
}

// ask makes one request and follows its answer to the result.
func ask[T any](ctx context.Context, c *Client, method, path string, body any, f ProgressFunc) (*T, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fault.New("ask daemon", c.socket, fault.Other, err)
		}
		in = bytes.NewReader(b)
	}
	// The host is not looked at; it only makes the URL a valid one.
	req, err := http.NewRequestWithContext(ctx, method, "http://condafs"+prefix+path, in)
	if err != nil {
		return nil, fault.New("ask daemon", c.socket, fault.Usage, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	v, err := follow[T](resp.Body, f)
	if cerr := resp.Body.Close(); err == nil && cerr != nil {
		err = cerr
	}
	if err != nil {
		if _, ok := errors.AsType[*fault.Error](err); ok {
			return nil, err
		}
		return nil, c.unreachable(ctx, err)
	}
	return v, nil
}

// follow reads lines up to the result or error.
func follow[T any](r io.Reader, f ProgressFunc) (*T, error) {
	d := json.NewDecoder(r)
	for {
		var l line[T]
		if err := d.Decode(&l); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		switch {
		case l.Error != nil:
			return nil, l.Error.fault()
		case l.Result != nil:
			return l.Result, nil
		case l.Progress != nil:
			f.Report(*l.Progress)
		default:
			return nil, errors.New("an answer that is neither result nor error")
		}
	}
}

// unreachable explains why no answer came.
func (c *Client) unreachable(ctx context.Context, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	switch {
	case ctx.Err() != nil:
		return fault.New("ask daemon", "", fault.Canceled, errors.New("stopped"))
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return fault.New("connect to the daemon", c.socket, fault.NotMounted, errors.New("nobody listens there")).
			WithHint("start it with `condafs mount MOUNTPOINT`")
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return fault.New("connect to the daemon", c.socket, fault.Permission, errors.New("permission denied")).
			WithHint("the mount is another user's and was made without --allow-other")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fault.New("ask daemon", c.socket, fault.NotMounted, errors.New("it hung up before it answered")).
			WithHint("see its log file")
	}
	return fault.New("ask daemon", c.socket, fault.IO, fmt.Errorf("no answer: %w", err))
}
