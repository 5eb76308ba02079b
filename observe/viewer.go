package observe

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"condafs/control"
)

// stranger is who cannot be told: no user has this uid.
var stranger = control.Peer{UID: math.MaxUint32, GID: math.MaxUint32}

type connKey struct{}

// withConn remembers a request's connection.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// viewer tells who makes a request: by the kernel's word, never by the request's own. Over a Unix socket, and over TCP from this
// machine to itself, that is a user; else it is a stranger.
func viewer(ctx context.Context) control.Peer {
	c, ok := ctx.Value(connKey{}).(*limitedConn)
	if !ok {
		return stranger
	}
	if c.LocalAddr().Network() == "unix" {
		p, err := control.PeerOf(c.Conn)
		if err != nil {
			return stranger
		}
		return p
	}
	remote, err1 := netip.ParseAddrPort(c.RemoteAddr().String())
	local, err2 := netip.ParseAddrPort(c.LocalAddr().String())
	if err1 != nil || err2 != nil || !remote.Addr().Unmap().IsLoopback() {
		return stranger
	}
	uid, err := ownerOf(remote, local)
	if err != nil {
		return stranger
	}
	return control.Peer{UID: uid, GID: math.MaxUint32}
}

// ownerOf returns who has made the socket that is bound to from and connected to to, on this machine.
func ownerOf(from, to netip.AddrPort) (uint32, error) {
	var errs []error
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		uid, found, err := findOwner(f, from, to)
		errs = append(errs, err, f.Close())
		if found {
			return uid, nil
		}
	}
	return 0, errors.Join(append(errs, errors.New("no such connection"))...)
}

// findOwner reads the format of /proc/net/tcp. Only a connection that is established counts: one that waits for its end is
// nobody's, and shows as root's.
func findOwner(r io.Reader, from, to netip.AddrPort) (uid uint32, found bool, err error) {
	const established = "01"
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		// sl local remote state queues timer retransmits uid timeout inode …
		f := strings.Fields(sc.Text())
		if len(f) < 10 || f[3] != established {
			continue
		}
		local, err1 := parseHex(f[1])
		remote, err2 := parseHex(f[2])
		if err1 != nil || err2 != nil || !same(local, from) || !same(remote, to) {
			continue
		}
		n, err := strconv.ParseUint(f[7], 10, 32)
		return uint32(n), err == nil, err
	}
	return 0, false, sc.Err()
}

func same(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Unmap() == b.Addr().Unmap()
}

// parseHex reads an address as the kernel prints it: words of four bytes in the machine's order, and a port.
func parseHex(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	if err != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	for i := 0; i < len(b); i += 4 {
		binary.BigEndian.PutUint32(b[i:], binary.NativeEndian.Uint32(b[i:]))
	}
	addr, ok := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	return netip.AddrPortFrom(addr, uint16(n)), nil
}
