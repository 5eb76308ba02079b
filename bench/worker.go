package bench

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"condafs/demo"
)

// WorkerCommand is the hidden command under which the condafs binary does one thing to files and prints a [worked].
const WorkerCommand = "bench-worker"

// worked is what a worker says, as one line of JSON.
type worked struct {
	Seconds float64 `json:"seconds"`
	Files   int     `json:"files"`
	Bytes   int64   `json:"bytes"` // written or read
}

// WorkerMain does one thing to a package directory and returns its exit status:
//
//	extract DIR FILES   makes it, with so many small files, as a client does that unpacks an archive
//	write DIR BYTES     makes it, with one large file
//	walk DIR            stats all that is in it, a second time
//	read DIR            opens, reads and closes all files, a second time
//	cold DIR            reads all files once
func WorkerMain(args []string, stdout, stderr io.Writer) int {
	w, err := doWork(args)
	if err == nil {
		err = json.NewEncoder(stdout).Encode(w)
	}
	if err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func doWork(args []string) (worked, error) {
	if len(args) < 2 {
		return worked{}, errors.New("usage: bench-worker OPERATION DIR [NUMBER]")
	}
	dir, number := args[1], 0
	if len(args) > 2 {
		var err error
		if number, err = strconv.Atoi(args[2]); err != nil {
			return worked{}, err
		}
	}
	switch args[0] {
	case "extract":
		return makePackage(dir, number, smallFile, true)
	case "write":
		return makePackage(dir, 1, func(int) []byte { return noise(number) }, false)
	case "walk":
		return again(dir, func(string) (int64, error) { return 0, nil })
	case "read":
		return again(dir, readFile)
	case "cold":
		return through(dir, readFile)
	}
	return worked{}, fmt.Errorf("no operation %q", args[0])
}

// noise is not worth compressing, and the same each time.
func noise(size int) []byte {
	b := make([]byte, size)
	x := uint64(size) | 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

var smallNoise = noise(8 << 10)

// smallFile has 100 bytes to 8 KiB, and differs from all others.
func smallFile(i int) []byte {
	return append([]byte(strconv.Itoa(i)+"\n"), smallNoise[:100+i*37%(len(smallNoise)-200)]...)
}

// makePackage makes a package whose own list of files proves it, beside its archive if so wanted, as a client does that unpacks
// that. What is not a client's work comes before the clock starts.
func makePackage(dir string, files int, content func(i int) []byte, archive bool) (w worked, err error) {
	type entry struct {
		Path   string `json:"_path"`
		Type   string `json:"path_type"`
		SHA256 string `json:"sha256"`
		Size   int    `json:"size_in_bytes"`
	}
	list, payload := make([]entry, files), make([]member, files)
	for i := range list {
		b := content(i)
		sum := sha256.Sum256(b)
		list[i] = entry{fmt.Sprintf("lib/d%02d/f%05d.py", i%40, i), "hardlink", hex.EncodeToString(sum[:]), len(b)}
		payload[i] = member{list[i].Path, b}
	}
	base := filepath.Base(dir)
	id := map[string]any{"name": packageName, "version": "1.0", "build": base[strings.LastIndexByte(base, '-')+1:], "build_number": 0, "subdir": "linux-64", "depends": []string{}}
	index, err := json.Marshal(id)
	if err != nil {
		return w, err
	}
	paths, err := json.Marshal(map[string]any{"paths": list, "paths_version": 1})
	if err != nil {
		return w, err
	}
	info := []member{{"info/index.json", index}, {"info/paths.json", paths}}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return w, err
	}
	if archive {
		if err := writeArchive(dir+".conda", base, slices.Concat(payload, info)); err != nil {
			return w, err
		}
	}
	started := time.Now()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return w, err
	}
	to, err := filepath.EvalSymlinks(dir) // conda-package-streaming begins with os.path.realpath, too
	if err != nil {
		return w, err
	}
	for _, sub := range []string{"info", "lib"} {
		if err := os.Mkdir(filepath.Join(to, sub), 0o755); err != nil {
			return w, err
		}
	}
	for i, m := range payload {
		if i < 40 {
			if err := os.Mkdir(filepath.Dir(filepath.Join(to, m.name)), 0o755); err != nil {
				return w, err
			}
		}
		if err := unpack(filepath.Join(to, m.name), m.content); err != nil {
			return w, err
		}
		w.Files++
		w.Bytes += int64(len(m.content))
	}
	for _, m := range info {
		if err := unpack(filepath.Join(to, m.name), m.content); err != nil {
			return w, err
		}
	}
	id["fn"], id["url"] = base+".conda", "http://localhost/linux-64/"+base+".conda"
	record, err := json.Marshal(id)
	if err != nil {
		return w, err
	}
	if err := os.WriteFile(filepath.Join(dir, "info", "repodata_record.json"), record, 0o644); err != nil {
		return w, err
	}
	_, err = os.ReadFile(filepath.Join(dir, "info", "index.json")) // what a client does next waits for what follows on condafs
	w.Seconds = time.Since(started).Seconds()
	return w, err
}

func writeArchive(name, dist string, members []member) error {
	files := make(map[string][]byte, len(members))
	for _, m := range members {
		files[m.name] = m.content
	}
	b, err := demo.Archive(dist, files)
	if err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o644)
}

// member is a file of a package.
type member struct {
	name    string
	content []byte
}

// fileTime is what all files of packages have.
var fileTime = time.Unix(1_700_000_000, 0)

// unpack does to one file what Python's tarfile does.
func unpack(path string, content []byte) error {
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o644); err != nil {
		return err
	}
	return os.Chtimes(path, fileTime, fileTime)
}

// again goes through a directory twice, and takes the time of the second.
func again(dir string, do func(path string) (int64, error)) (worked, error) {
	if w, err := through(dir, do); err != nil {
		return w, err
	}
	return through(dir, do)
}

// through stats everything in a directory and does something to each file of the package's payload.
func through(dir string, do func(path string) (int64, error)) (w worked, err error) {
	started := time.Now()
	err = filepath.WalkDir(filepath.Join(dir, "lib"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if _, err := os.Lstat(path); err != nil || d.IsDir() {
			return err
		}
		n, err := do(path)
		w.Files++
		w.Bytes += n
		return err
	})
	w.Seconds = time.Since(started).Seconds()
	return w, err
}

var readBuffer = make([]byte, 1<<20)

func readFile(path string) (size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for {
		n, err := f.Read(readBuffer)
		size += int64(n)
		if err == io.EOF {
			return size, nil
		} else if err != nil {
			return size, err
		}
	}
}
