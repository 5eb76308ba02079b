package control

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"condafs/fault"
)

// prefix carries the protocol's version: an incompatible one gets another.
const prefix = "/v1"

// Who may ask.
type rule func(s *Server, p Peer, r *http.Request) error

// anyone who could connect. What they see is cut down to them by the Backend.
func anyone(*Server, Peer, *http.Request) error { return nil }

// storeOwner is who runs the daemon, and root.
func storeOwner(s *Server, p Peer, r *http.Request) error {
	if s.mayAll(p) {
		return nil
	}
	return fault.New(strings.TrimPrefix(r.URL.Path, prefix+"/"), "", fault.Permission, fmt.Errorf("not allowed for uid %d", p.UID)).
		WithHint(fmt.Sprintf("only the store's owner, uid %d, and root may do this", s.owner))
}

// sessionOwner is who started the session in the path, the store's owner and root.
// Somebody else's session does not exist as far as others are told.
func sessionOwner(s *Server, p Peer, r *http.Request) error {
	id := r.PathValue("id")
	if err := checkID(id); err != nil {
		return badRequest(err)
	}
	uid, ok := s.backend.SessionOwner(id)
	if !ok || (uid != p.UID && !s.mayAll(p)) {
		return fault.New("session", id, fault.NotFound, nil).WithHint("`condafs sessions` lists the live ones")
	}
	return nil
}

// listed makes sure that an empty list is [] in JSON, and not null.
func listed[T any](l []T) *[]T {
	if l == nil {
		l = []T{}
	}
	return &l
}

// routes is the protocol: each request, who may make it, and what it calls.
func (s *Server) routes() http.Handler {
	m := http.NewServeMux()
	m.Handle("GET "+prefix+"/status", answer(s, anyone, func(ctx context.Context, a API, _ *http.Request, _ empty) (*Status, error) {
		return a.Status(ctx)
	}))
	m.Handle("GET "+prefix+"/activity", answer(s, storeOwner, func(ctx context.Context, a API, _ *http.Request, _ empty) (*Activity, error) {
		return a.Activity(ctx)
	}))
	m.Handle("GET "+prefix+"/sessions", answer(s, anyone, func(ctx context.Context, a API, _ *http.Request, _ empty) (*[]Session, error) {
		l, err := a.Sessions(ctx)
		return listed(l), err
	}))
	m.Handle("POST "+prefix+"/sessions", answer(s, anyone, func(ctx context.Context, a API, _ *http.Request, q StartRequest) (*Started, error) {
		return a.Start(ctx, q)
	}))
	m.Handle("POST "+prefix+"/sessions/{id}/end", answer(s, sessionOwner, func(ctx context.Context, a API, r *http.Request, q EndRequest) (*Report, error) {
		// A session's end is not given up half-way because its runner was killed meanwhile.
		return a.End(context.WithoutCancel(ctx), r.PathValue("id"), q)
	}))
	m.Handle("POST "+prefix+"/sessions/{id}/commit", answer(s, sessionOwner, func(ctx context.Context, a API, r *http.Request, _ empty) (*Report, error) {
		return a.Commit(ctx, r.PathValue("id"))
	}))
	m.Handle("POST "+prefix+"/sessions/{id}/discard", answer(s, sessionOwner, func(ctx context.Context, a API, r *http.Request, _ empty) (*empty, error) {
		return &empty{}, a.Discard(ctx, r.PathValue("id"))
	}))
	m.Handle("GET "+prefix+"/packages", answer(s, anyone, func(ctx context.Context, a API, _ *http.Request, _ empty) (*[]Package, error) {
		l, err := a.Packages(ctx)
		return listed(l), err
	}))
	m.Handle("GET "+prefix+"/packages/{name}", answer(s, anyone, func(ctx context.Context, a API, r *http.Request, _ empty) (*PackageFiles, error) {
		name := r.PathValue("name")
		if err := CheckPackageName(name); err != nil {
			return nil, badRequest(err)
		}
		return a.Package(ctx, name)
	}))
	m.Handle("GET "+prefix+"/log", answer(s, anyone, func(ctx context.Context, a API, r *http.Request, _ empty) (*[]Commit, error) {
		limit := 0
		if q := r.URL.Query().Get("limit"); q != "" {
			n, err := strconv.Atoi(q)
			if err != nil || n < 0 {
				return nil, fault.New("read request", "limit "+strconv.Quote(q), fault.Usage, err)
			}
			limit = n
		}
		l, err := a.Log(ctx, limit)
		return listed(l), err
	}))
	m.Handle("POST "+prefix+"/verify", stream(s, storeOwner, API.Verify))
	m.Handle("POST "+prefix+"/repair", stream(s, storeOwner, API.Repair))
	m.Handle("POST "+prefix+"/scrub", stream(s, storeOwner, API.Scrub))
	m.Handle("POST "+prefix+"/gc", stream(s, storeOwner, API.GC))
	m.Handle("POST "+prefix+"/import", stream(s, storeOwner, API.Import))
	m.Handle("POST "+prefix+"/export", stream(s, storeOwner, API.Export))
	m.Handle("POST "+prefix+"/upgrade", stream(s, storeOwner, API.Upgrade))
	m.Handle("GET "+prefix+"/upgrade/{id}", answer(s, storeOwner, func(ctx context.Context, a API, r *http.Request, _ empty) (*Upgrade, error) {
		if err := checkID(r.PathValue("id")); err != nil {
			return nil, badRequest(err)
		}
		return a.Upgraded(ctx, r.PathValue("id"))
	}))
	m.Handle("POST "+prefix+"/stop", stream(s, storeOwner, func(a API, ctx context.Context, q StopRequest, f ProgressFunc) (*Stopped, error) {
		return a.Stop(context.WithoutCancel(ctx), q, f)
	}))
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, fault.New("read request", r.Method+" "+r.URL.Path, fault.NotFound, nil).
			WithHint("the daemon is of another version; mount again with this one"))
	})
	return m
}
