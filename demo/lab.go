package demo

import (
	"errors"
	"fmt"
)

// Lab is a channel, its server and its judge, for who has other questions than the demonstration's. Its methods are
// safe for concurrent use.
type Lab struct {
	channel *channel
	server  *server
}

// NewLab makes a channel and serves it on a loopback port, over that link, until Close.
func NewLab(size Size, link Link) (*Lab, error) {
	c, err := makeChannelOf(size)
	if err != nil {
		return nil, err
	}
	s, err := serve(c, link)
	if err != nil {
		return nil, err
	}
	return &Lab{c, s}, nil
}

// Close stops the server.
func (l *Lab) Close() error { return l.server.close() }

// URL is the channel's.
func (l *Lab) URL() string { return l.server.url }

// Served is how many bytes the channel has sent so far.
func (l *Lab) Served() int64 { return l.server.sent.Load() }

// Packages is how many the channel has. An environment with "app" in it has all of them.
func (l *Lab) Packages() int { return len(l.channel.packages) }

// Files counts those of info/ too.
func (l *Lab) Files() int {
	n := 0
	for _, p := range l.channel.packages {
		n += len(p.files)
	}
	return n
}

// Archives is in bytes.
func (l *Lab) Archives() int64 {
	var n int64
	for _, p := range l.channel.packages {
		n += p.record.Size
	}
	return n
}

// Judge compares every byte of an environment with what "app" should have made of it.
func (l *Lab) Judge(prefix string) error {
	var col Column
	l.channel.judgeEnvironment(prefix, &col)
	if col.EnvironmentsBroken == 0 {
		return nil
	}
	if col.FilesMissing+col.FilesWrong == 0 {
		return errors.New("conda-meta is not complete")
	}
	return fmt.Errorf("%d files are missing, %d are wrong", col.FilesMissing, col.FilesWrong)
}

// InstallArgs are the arguments with which the condafs binary becomes a client that makes an environment with "app".
func (l *Lab) InstallArgs(pkgs, prefix string, copies bool) []string {
	args := []string{ClientCommand, "-channel", l.URL(), "-pkgs", pkgs, "-prefix", prefix}
	if copies {
		args = append(args, "-copy")
	}
	return append(args, "install", "app")
}
