package demo

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// repodataState is cache/HASH.info.json: what the cached repodata is, so that the server need not send it again.
type repodataState struct {
	URL       string `json:"url"`
	ETag      string `json:"etag"`
	MtimeNs   int64  `json:"mtime_ns"`
	Size      int64  `json:"size"`
	RefreshNs int64  `json:"refresh_ns"`
}

// fetchRepodata asks for the channel's repodata with the cached ETag and keeps the answer in pkgs/cache.
func fetchRepodata(pkgs, channel string) (map[string]record, error) {
	url := channel + "/linux-64"
	folder := filepath.Join(pkgs, "cache")
	if err := os.Mkdir(folder, 0o777); err != nil && !isDir(folder) {
		return nil, err
	}
	sum := md5.Sum([]byte(url + "/"))
	base := filepath.Join(folder, hex.EncodeToString(sum[:])[:8])
	data, err := currentRepodata(base, url)
	if err != nil {
		return nil, err
	}
	var parsed struct {
		Packages map[string]record `json:"packages.conda"`
	}
	if err := json.Unmarshal(data, &parsed); err != nil {
		return nil, err
	}
	for fn, r := range parsed.Packages {
		r.Fn, r.URL, r.Channel = fn, url+"/"+fn, url
		parsed.Packages[fn] = r
	}
	return parsed.Packages, nil
}

func currentRepodata(base, url string) ([]byte, error) {
	state, err := loadState(base)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequest(http.MethodGet, url+"/repodata.json", nil)
	if err != nil {
		return nil, err
	}
	if state.ETag != "" && isFile(base+".json") {
		req.Header.Set("If-None-Match", state.ETag)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusNotModified:
		if err := saveState(base, &state, nil); err != nil {
			return nil, err
		}
		return readRepodata(base)
	case http.StatusOK:
		data, err := io.ReadAll(resp.Body)
		if err != nil {
			return nil, err
		}
		state = repodataState{URL: url, ETag: resp.Header.Get("ETag")}
		return data, saveRepodata(base, &state, data)
	}
	return nil, fmt.Errorf("CondaHTTPError: %s for %s", resp.Status, req.URL)
}

// loadState reads the state under the lock. No state, or one that is half written, counts as none.
func loadState(base string) (repodataState, error) {
	var state repodataState
	f, err := os.OpenFile(base+".info.json", os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return state, err
	}
	defer f.Close()
	err = withLock(f, func() error {
		b, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		if json.Unmarshal(b, &state) != nil {
			state = repodataState{}
			return nil
		}
		st, err := os.Stat(base + ".json")
		if err != nil || st.ModTime().UnixNano() != state.MtimeNs || st.Size() != state.Size {
			state.ETag = ""
		}
		return nil
	})
	return state, err
}

func readRepodata(base string) ([]byte, error) {
	f, err := os.OpenFile(base+".info.json", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var data []byte
	err = withLock(f, func() error {
		data, err = os.ReadFile(base + ".json")
		return err
	})
	return data, err
}

func saveRepodata(base string, state *repodataState, data []byte) error {
	temp := fmt.Sprintf("%s.%04x.tmp", base, rand.Uint32()&0xffff)
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer os.Remove(temp) //nolint:errcheck // normally renamed away by then
	if _, err := f.Write(data); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := f.Close(); err != nil {
		return err
	}
	return saveState(base, state, func() error {
		st, err := os.Stat(temp)
		if err != nil {
			return err
		}
		state.MtimeNs, state.Size = st.ModTime().UnixNano(), st.Size()
		return os.Rename(temp, base+".json")
	})
}

// saveState truncates the state under its lock, does what goes with it, and writes it anew.
func saveState(base string, state *repodataState, with func() error) error {
	f, err := os.OpenFile(base+".info.json", os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	return withLock(f, func() error {
		if err := f.Truncate(0); err != nil {
			return err
		}
		if with != nil {
			if err := with(); err != nil {
				return err
			}
		}
		state.RefreshNs = time.Now().UnixNano()
		return json.NewEncoder(f).Encode(state)
	})
}
