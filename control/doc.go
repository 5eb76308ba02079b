// Package control is how the command line talks to a condafs daemon.
//
// The daemon listens on a Unix socket and speaks HTTP/1.1 with JSON bodies.
// [API] lists what can be asked for; [Client] asks it of a daemon, and [Server]
// answers with a [Backend], which is the daemon's own state. The types in
// types.go are the JSON, both on the socket and behind the command line's
// --json: their field names are a contract, and fields are only ever added.
//
// Who asks is never taken from the request. The kernel tells the server the
// peer's pid, uid and gid when it connects (SO_PEERCRED). The store's owner and
// root may do everything. Anybody else, on a mount that lets others in, may look
// at the status and the packages, and start, commit and discard sessions of
// their own; the rules stand in one table in routes.go.
//
// Work that takes long (verify, scrub, gc, import, export, stop) is answered as a
// stream of JSON lines: any number of {"progress": …}, then one {"result": …} or
// {"error": …}. A client that hangs up cancels the work.
package control
