package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
)

const (
	fetchThreads   = 5
	extractWorkers = 2
	chunk          = 16 << 10
)

// fetchAndExtract brings all packages into the cache: the largest first, extraction beside the downloads.
func fetchAndExtract(c *cache, chosen []record) error {
	if err := c.load(); err != nil {
		return err
	}
	wanted := slices.Clone(chosen)
	slices.SortFunc(wanted, func(a, b record) int { return int(b.Size - a.Size) })
	var mu sync.Mutex
	var errs []error
	note := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
	}
	var fetches, extractions errgroup.Group
	fetches.SetLimit(fetchThreads)
	extractions.SetLimit(extractWorkers)
	toExtract := make(chan record, len(wanted))
	for _, r := range wanted {
		have, ok := c.records[r.dist()]
		same := ok && r.is(have)
		in := c.find(r.dist())
		switch {
		case in != nil && r.is(in.records[r.dist()]):
		case same && isFile(c.path(r.Fn)):
			toExtract <- r
		default:
			fetches.Go(func() error {
				if err := fetch(c, r); err != nil {
					note(err)
					return nil
				}
				toExtract <- r
				return nil
			})
		}
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for r := range toExtract {
			extractions.Go(func() error {
				if err := extract(c, r); err != nil {
					if !errors.Is(err, errCorruptTarball) {
						removeAll(c.path(r.dist()))
					}
					note(err)
				}
				return nil
			})
		}
	}()
	err := fetches.Wait()
	close(toExtract)
	<-finished
	return errors.Join(append(errs, err, extractions.Wait())...)
}

// is tells whether a record of the cache is about what r names.
func (r record) is(have record) bool {
	return have.MD5 == r.MD5 && have.Size == r.Size && have.URL != ""
}

// fetch moves an older archive aside, downloads and appends to urls.txt.
func fetch(c *cache, r record) error {
	target, hold := c.path(r.Fn), c.path(r.Fn+holdExt)
	removeAll(hold)
	if exists(target) {
		if err := os.Rename(target, hold); err != nil {
			return err
		}
	}
	err := download(r, target)
	if err == nil {
		err = c.addURL(r.URL)
	}
	if err != nil {
		if exists(hold) {
			removeAll(target)
			return errors.Join(err, os.Rename(hold, target))
		}
		return err
	}
	removeAll(hold)
	return nil
}

// errChecksum is a download with wrong bytes; conda tries again if it had resumed somebody's.
var errChecksum = errors.New("ChecksumMismatchError")

func download(r record, target string) error {
	partial := target + partialExt
	resumed := exists(partial)
	err := downloadPartial(r, target, resumed)
	if errors.Is(err, errChecksum) && resumed {
		err = downloadPartial(r, target, exists(partial))
	}
	return err
}

func downloadPartial(r record, target string, resumed bool) error {
	partial := target + partialExt
	flags := os.O_RDWR
	if !resumed {
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(partial, flags, 0o666)
	if err != nil {
		return err
	}
	err = withLock(f, func() error {
		if err := fill(f, r); err != nil {
			return err
		}
		return check(f, r)
	})
	if err := errors.Join(err, f.Close()); err != nil {
		if errors.Is(err, errChecksum) {
			return errors.Join(err, os.Remove(partial))
		}
		return err
	}
	if os.Rename(partial, target) == nil {
		return nil
	}
	// Meant for Windows but taken everywhere: this removes what another client has just completed.
	if err := os.Remove(target); err != nil {
		return err
	}
	return os.Rename(partial, target)
}

func fill(f *os.File, r record) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() >= r.Size {
		return nil
	}
	req, err := http.NewRequest(http.MethodGet, r.URL, nil)
	if err != nil {
		return err
	}
	if st.Size() > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", st.Size()))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusPartialContent:
		if _, err := f.Seek(st.Size(), io.SeekStart); err != nil {
			return err
		}
	case http.StatusOK:
		if err := f.Truncate(0); err != nil {
			return err
		}
	default:
		return fmt.Errorf("CondaHTTPError: %s for %s", resp.Status, r.URL)
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{resp.Body}, make([]byte, chunk))
	return err
}

func check(f *os.File, r record) error {
	h := sha256.New()
	n, err := io.CopyBuffer(h, io.NewSectionReader(f, 0, 1<<62), make([]byte, chunk))
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != r.SHA256 || n != r.Size {
		return fmt.Errorf("%w: %s has sha256 %s and %d bytes", errChecksum, r.URL, got, n)
	}
	return nil
}
