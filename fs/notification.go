package fs

import (
	"bytes"
	"encoding/binary"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// notification is a message to the kernel that answers no request: what it is about,
// and perhaps a name.
func notification(code int32, about any, name ...byte) []byte {
	var b bytes.Buffer
	b.Write(make([]byte, outHeaderSize))
	if err := binary.Write(&b, binary.NativeEndian, about); err != nil {
		panic(err) // about is not of fixed size
	}
	b.Write(name)
	m := b.Bytes()
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint32(m[4:], uint32(-code)) // and no unique number
	return m
}

// forgetEntry makes the kernel forget a name. It waits for requests about the directory.
func (d *device) forgetEntry(dir uint64, name string) fuse.Status {
	m := notification(fuse.NOTIFY_INVAL_ENTRY, fuse.NotifyInvalEntryOut{Parent: dir, NameLen: uint32(len(name))}, append([]byte(name), 0)...)
	return fuse.ToStatus(d.write(m))
}

// forgetNode makes the kernel forget a node's attributes and its cached contents.
func (d *device) forgetNode(id uint64) fuse.Status {
	return fuse.ToStatus(d.write(notification(fuse.NOTIFY_INVAL_INODE, fuse.NotifyInvalInodeOut{Ino: id})))
}
