package demo

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
)

// ClientCommand is the hidden command under which the condafs binary runs one client of the demonstration.
const ClientCommand = "demo-client"

// outcome is what a client prints about itself. The judge does not believe it.
type outcome struct {
	Success bool   `json:"success"`
	Error   string `json:"error,omitempty"`
}

// errCorruptTarball ends a client the way conda ends then: a message, and exit status 0 without an environment.
var errCorruptTarball = errors.New("encountered corrupt package tarball, exiting 1")

// ClientMain runs one client and returns its exit status: `install` makes an environment, `clean` empties a cache.
func ClientMain(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(ClientCommand, flag.ContinueOnError)
	flags.SetOutput(stderr)
	channel := flags.String("channel", "", "URL of the channel")
	pkgs := flags.String("pkgs", "", "package directories, with commas between: the first is written to, all are searched")
	prefix := flags.String("prefix", "", "environment to make")
	copies := flags.Bool("copy", false, "copy into the environment where others link, as with conda's always_copy")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	var err error
	switch flags.Arg(0) {
	case "install":
		err = install(*channel, *pkgs, *prefix, *copies, flags.Args()[1:])
	case "clean":
		err = clean(*pkgs)
	default:
		err = fmt.Errorf("unknown command %q", flags.Arg(0))
	}
	result, status := outcome{Success: err == nil}, 0
	if err != nil {
		result.Error = err.Error()
		if !errors.Is(err, errCorruptTarball) {
			status = 1
		}
	}
	if err := json.NewEncoder(stdout).Encode(result); err != nil {
		return 1
	}
	return status
}

// install does what `conda create` does, the solver apart: the named packages and all they depend on.
func install(channel, pkgs, prefix string, copies bool, specs []string) error {
	cache := openCaches(pkgs)
	if err := cache.makeWritable(); err != nil {
		return err
	}
	records, err := fetchRepodata(cache.dir, channel)
	if err != nil {
		return err
	}
	chosen, err := closure(records, specs)
	if err != nil {
		return err
	}
	if err := fetchAndExtract(cache, chosen); err != nil {
		return err
	}
	return link(cache, chosen, prefix, copies)
}

func closure(records map[string]record, specs []string) ([]record, error) {
	byName := map[string]record{}
	for _, r := range records {
		byName[r.Name] = r
	}
	seen := map[string]bool{}
	var chosen []record
	for todo := specs; len(todo) > 0; todo = todo[1:] {
		name := strings.TrimSpace(todo[0])
		if seen[name] {
			continue
		}
		seen[name] = true
		r, ok := byName[name]
		if !ok {
			return nil, fmt.Errorf("PackagesNotFoundError: %s", name)
		}
		chosen = append(chosen, r)
		todo = append(todo, r.Depends...)
	}
	return chosen, nil
}

// clean is `conda clean --all`: archives, the repodata cache and packages that no environment has hard links to.
func clean(pkgs string) error {
	cache := openCaches(pkgs)
	if !cache.writable() {
		return nil
	}
	entries, err := os.ReadDir(cache.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), partialExt)
		if !e.IsDir() && strings.HasSuffix(name, archiveExt) && !inUse(cache.path(e.Name())) {
			removeAll(cache.path(e.Name()))
		}
	}
	removeAll(cache.path("cache"))
	for _, e := range entries {
		if e.IsDir() && isDir(cache.path(e.Name(), "info")) && !inUse(cache.path(e.Name())) {
			removeAll(cache.path(e.Name()))
		}
	}
	return nil
}
