package fs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// device is an open /dev/fuse: our end of the connection to the kernel.
//
// go-fuse decodes requests and encodes replies; reading and writing is done here, and
// not by go-fuse's own server, so that it can be stopped and gone on with: by this
// process, or by another one that gets the same open file. A request that nobody has
// read waits in the kernel meanwhile.
type device struct {
	file   *os.File
	raw    syscall.RawConn // keeps the descriptor open for as long as a call uses it
	log    *slog.Logger
	server *fuse.ProtocolServer
	mount  string // its mount point, to have the kernel send a request
	hello  []byte // the kernel's first request, INIT, which comes once in the life of a mount
	answer []byte // ours

	requests requests

	mu      sync.Mutex
	readers int                 // goroutines that serve
	waiting int                 // those of them that wait for a request
	waking  int                 // requests of our own that wake them
	paused  bool                // readers go after the request that they are at
	dead    bool                // there is no mount any more
	working map[uint64]struct{} // the unique numbers of the requests that are being answered
	changed chan struct{}
	gone    chan struct{} // closed when it is dead and the last reader has gone
}

// Opcodes that are looked at before go-fuse does.
const (
	opForget      = 2
	opRead        = 15
	opGetxattr    = 22
	opListxattr   = 23
	opInit        = 26
	opReaddir     = 28
	opInterrupt   = 36
	opIoctl       = 39
	opPoll        = 40
	opBatchForget = 42
	opReaddirPlus = 44
)

// Parts of the kernel's structures, in bytes.
const (
	inHeaderSize  = 40 // length, opcode, unique, node, …
	outHeaderSize = 16 // length, error, unique
)

// roomAt says where in a request stands how long the answer may be, if that is there.
var roomAt = map[uint32]int{
	opRead:        inHeaderSize + 16,
	opReaddir:     inHeaderSize + 16,
	opReaddirPlus: inHeaderSize + 16,
	opGetxattr:    inHeaderSize,
	opListxattr:   inHeaderSize,
	opIoctl:       inHeaderSize + 28,
}

// Sizes of buffers in bytes. The kernel wants room for the largest request it may send.
const (
	largeBuffer = maxWrite + smallBuffer
	smallBuffer = 8192
)

var (
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
)

// newDevice makes a device of the connection of a mount.
func newDevice(fd int, server *fuse.ProtocolServer, mountPoint string, log *slog.Logger) (*device, error) {
	d := &device{
		file: os.NewFile(uintptr(fd), fuseDevice), server: server, mount: mountPoint, log: log,
		working: make(map[uint64]struct{}), changed: make(chan struct{}), gone: make(chan struct{}),
	}
	var err error
	if d.raw, err = d.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, d.file.Close())
	}
	return d, nil
}

// greet answers the kernel's first request, and returns what the kernel can do.
func (d *device) greet() (flags uint64, err error) {
	buf := make([]byte, largeBuffer)
	n, err := d.read(buf)
	if err != nil {
		return 0, fmt.Errorf("read the kernel's first request: %w", err)
	}
	d.hello = buf[:n:n]
	if d.answer, err = d.negotiate(); err != nil {
		return 0, err
	}
	if err := d.write(d.answer); err != nil {
		return 0, fmt.Errorf("answer the kernel's first request: %w", err)
	}
	var in fuse.InitIn
	// Older kernels send less.
	whole := append(make([]byte, 0, binary.Size(in)), d.hello...)
	if _, err := binary.Decode(whole[:max(binary.Size(in), n)], binary.NativeEndian, &in); err != nil {
		return 0, fmt.Errorf("read the kernel's first request: %w", err)
	}
	return in.Flags64(), nil
}

// negotiate lets go-fuse answer the kernel's first request.
func (d *device) negotiate() ([]byte, error) {
	if len(d.hello) < inHeaderSize || opcode(d.hello) != opInit {
		return nil, errors.New("the kernel's first request is not INIT")
	}
	out := make([]byte, smallBuffer)
	n, status := d.server.HandleRequest([][]byte{d.hello}, [][]byte{out})
	if !status.Ok() || n < outHeaderSize {
		return nil, fmt.Errorf("the kernel's first request: %v", status)
	}
	if errno := int32(binary.NativeEndian.Uint32(out[4:])); errno != 0 {
		return nil, fmt.Errorf("the kernel's first request: %w", unix.Errno(-errno))
	}
	return out[:n], nil
}

func opcode(request []byte) uint32 { return binary.NativeEndian.Uint32(request[4:]) }
func unique(request []byte) uint64 { return binary.NativeEndian.Uint64(request[8:]) }

// use calls f with the descriptor, unless it is closed.
func (d *device) use(f func(fd int) error) error {
	var err error
	if cerr := d.raw.Control(func(fd uintptr) { err = f(int(fd)) }); cerr != nil {
		return unix.EBADF
	}
	return err
}

// read takes the next request, and waits for it.
func (d *device) read(buf []byte) (n int, err error) {
	for {
		err = d.use(func(fd int) error {
			n, err = unix.Read(fd, buf)
			return err
		})
		// ENOENT: the caller gave up before the request was taken.
		if err != unix.EINTR && err != unix.ENOENT && err != unix.EAGAIN {
			return max(n, 0), err
		}
	}
}

// write sends a reply or a notification, whole.
func (d *device) write(b []byte) error {
	return d.use(func(fd int) error {
		for {
			if _, err := unix.Write(fd, b); err != unix.EINTR {
				return err
			}
		}
	})
}

func (d *device) close() error { return d.file.Close() }

// maxWaiting bounds the goroutines that wait for requests. One that begins to work
// makes sure that another one waits, so there are as many at work as there is work.
var maxWaiting = min(max(2, runtime.GOMAXPROCS(0)), 16)

// start begins to serve, or goes on with it.
func (d *device) start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paused = false
	if !d.dead {
		d.startReader()
	}
}

// startReader is called with mu held.
func (d *device) startReader() {
	d.readers++
	go d.serve()
}

// signal wakes who waits for a change. mu is held.
func (d *device) signal() {
	close(d.changed)
	d.changed = make(chan struct{})
}

func (d *device) serve() {
	var done uint64 // the request that was answered last
	for d.another(done) {
		buf := largeBuffers.Get().(*[largeBuffer]byte)
		n, err := d.read(buf[:])
		if err == nil && n < inHeaderSize {
			err = fmt.Errorf("a request of %d bytes", n)
		}
		if err != nil {
			largeBuffers.Put(buf)
			d.failed(err)
			continue
		}
		done = unique(buf[:])
		d.took(opcode(buf[:]), done)
		d.handle(buf, n)
	}
}

// another decides whether a reader, which has answered a request, waits for one more.
func (d *device) another(done uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.working, done)
	if !d.paused && !d.dead && d.waiting < maxWaiting {
		d.waiting++
		return true
	}
	d.readers--
	if d.dead && d.readers == 0 {
		close(d.gone)
	}
	d.signal()
	return false
}

// took notes that a reader waits no more, as it has got a request.
func (d *device) took(op uint32, unique uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting--
	d.working[unique] = struct{}{}
	// What the kernel wants no answer to costs it nothing to send: that is taken one by one.
	if d.waiting == 0 && !d.paused && !d.dead && op != opForget && op != opBatchForget {
		d.startReader()
	}
}

// failed notes that there is nothing to read any more.
func (d *device) failed(err error) {
	d.mu.Lock()
	d.waiting--
	first := !d.dead
	d.dead = true
	working := slices.Collect(maps.Keys(d.working))
	d.mu.Unlock()
	if !first {
		return
	}
	if err != unix.ENODEV {
		d.log.Error("cannot read requests any more", "error", err)
	}
	// Nobody waits for the answers: requests that wait for something need not.
	for _, u := range working {
		d.server.HandleRequest([][]byte{interruption(u)}, [][]byte{make([]byte, smallBuffer)})
	}
}

// interruption is what the kernel sends when a caller gives up.
func interruption(of uint64) []byte {
	b := make([]byte, inHeaderSize)
	binary.NativeEndian.PutUint32(b, inHeaderSize+8)
	binary.NativeEndian.PutUint32(b[4:], opInterrupt)
	return binary.NativeEndian.AppendUint64(b, of)
}

// handle answers one request and gives its buffer back.
func (d *device) handle(buf *[largeBuffer]byte, n int) {
	began := time.Now()
	in := buf[:n]
	op, unique := opcode(in), unique(in)
	// Not many requests are large, but many may wait for something.
	if n <= smallBuffer {
		small := smallBuffers.Get().(*[smallBuffer]byte)
		defer smallBuffers.Put(small)
		copy(small[:], in)
		in = small[:n]
		largeBuffers.Put(buf)
	} else {
		defer largeBuffers.Put(buf)
	}
	switch op {
	case opPoll: // from now on the kernel doesn't ask: all files are always ready
		d.reply(op, refusal(unique, unix.ENOSYS), began)
		return
	}
	out, done := replyBuffer(op, in)
	defer done()
	size, status := d.server.HandleRequest([][]byte{in}, [][]byte{out})
	switch {
	case !status.Ok():
		d.reply(op, refusal(unique, unix.EIO), began)
	case size > 0:
		d.reply(op, out[:size], began)
	default:
		d.requests.count(op, nil, time.Since(began))
	}
}

// replyBuffer returns room for any reply to a request. After done it is somebody else's.
func replyBuffer(op uint32, in []byte) (out []byte, done func()) {
	const rest = smallBuffer / 2 // for what else is in a reply
	room := 0
	if at, ok := roomAt[op]; ok && len(in) >= at+4 {
		room = int(binary.NativeEndian.Uint32(in[at:]))
	}
	switch {
	case room <= smallBuffer-rest:
		b := smallBuffers.Get().(*[smallBuffer]byte)
		return b[:], func() { smallBuffers.Put(b) }
	case room <= largeBuffer-rest:
		b := largeBuffers.Get().(*[largeBuffer]byte)
		return b[:], func() { largeBuffers.Put(b) }
	}
	return make([]byte, room+rest), func() {}
}

// refusal is a reply that says nothing but an error.
func refusal(unique uint64, errno unix.Errno) []byte {
	b := make([]byte, 0, outHeaderSize)
	b = binary.NativeEndian.AppendUint32(b, outHeaderSize)
	b = binary.NativeEndian.AppendUint32(b, uint32(-int32(errno)))
	return binary.NativeEndian.AppendUint64(b, unique)
}

func (d *device) reply(op uint32, b []byte, began time.Time) {
	d.requests.count(op, b, time.Since(began)) // who has the answer sees it counted
	switch err := d.write(b); err {
	case nil, unix.ENOENT, unix.ENODEV, unix.EBADF: // nobody waits for it any more
	default:
		d.log.Warn("the kernel did not take a reply", "opcode", op, "error", err)
	}
}

// How long apart readers are woken until all have gone.
const wakeAgain = 20 * time.Millisecond

// pause stops to take requests and returns true when those that had been taken are
// answered. If that takes longer than patience it goes on as before and returns false.
func (d *device) pause(patience time.Duration) bool {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	again := time.NewTicker(wakeAgain)
	defer again.Stop()
	for {
		d.mu.Lock()
		d.paused = true
		readers, changed := d.readers, d.changed
		for ; d.waking < d.waiting; d.waking++ {
			go d.wake()
		}
		d.mu.Unlock()
		if readers == 0 {
			return true
		}
		select {
		case <-changed:
		case <-again.C:
		case <-deadline.C:
			d.start()
			return false
		}
	}
}

// wake makes the kernel send something that one of the waiting readers gets: a request of
// our own. Nothing else wakes a reader of a quiet mount: there is no notification that
// each kernel answers, and a signal does not end a read that Go has begun. It waits for
// its answer, which comes from the reader that it wakes or, if another request was
// quicker, from whoever serves next; it does not outlive this process's program.
func (d *device) wake() {
	err := Ask(d.mount)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waking--
	if err != nil && !d.dead {
		d.log.Warn("cannot wake a reader", "error", err)
	}
}
