package integration

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// server is a running serve.py.
type server struct {
	t   *testing.T
	url string
}

// served is what a server has sent.
type served struct {
	Requests        int            `json:"requests"`
	Bytes           int64          `json:"bytes"`
	Dropped         int            `json:"dropped"`
	ArchiveRequests int            `json:"archive_requests"`
	Archives        map[string]int `json:"archives"`
}

// serve starts a server of the channel that ends with the test.
func serve(t *testing.T) *server {
	t.Helper()
	p := needTools(t)
	cmd := exec.Command(p.python, filepath.Join(p.clients, "serve.py"), p.channel)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// It ends when its standard input does.
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("serve.py: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("serve.py said nothing: %v", err)
	}
	var said struct{ URL string }
	if err := json.Unmarshal(line, &said); err != nil {
		t.Fatalf("serve.py said %q: %v", line, err)
	}
	return &server{t, said.URL}
}

// control asks the server for its counters, after changing something with a POST if path is not "stats".
func (s *server) control(path string) served {
	s.t.Helper()
	method := http.MethodPost
	if path == "stats" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+"/-/"+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	var stats served
	if err := json.Unmarshal(b, &stats); err != nil {
		s.t.Fatalf("%s: %v", b, err)
	}
	return stats
}

func (s *server) stats() served { s.t.Helper(); return s.control("stats") }
func (s *server) reset()        { s.t.Helper(); s.control("reset") }
