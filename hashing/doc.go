// Package hashing computes and names digests.
//
// The store names a file's bytes by their BLAKE3-256 Digest. conda's records name
// archives and files by SHA-256 or MD5, so that a file that must be both stored and
// compared with a record is read once and hashed by all of them at the same time
// (Hasher, Reader, File). Many files are hashed in parallel, bounded, by a Pool.
package hashing
