package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"condafs/fault"
)

// Key is something that can be set.
type Key struct {
	Name string // in the file
	Env  string // of the environment
	Kind Kind
}

// Kind is what a key's values look like.
type Kind int

// Kinds.
const (
	Text Kind = iota // also a whole number
	Flag             // true or false
	List             // any number of texts, or a table of NAME = VALUE
)

// File is what a file sets.
type File struct {
	Path   string
	values map[string][]string
}

const op = "read the configuration"

// Read reads a file, in which nothing but these keys may be set. One that is not there is
// an error of kind NotFound.
func Read(path string, keys []Key) (*File, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(op, path, fault.Other, err)
	}
	values, err := parse(b, keys)
	if err != nil {
		e := fault.New(op, path, fault.Usage, err)
		var u *unknown
		if errors.As(err, &u) {
			e = e.WithHint(u.hint())
		}
		return nil, e
	}
	return &File{Path: path, values: values}, nil
}

// ReadIfThere is Read, but for a file that need not be there; nil means that it isn't.
func ReadIfThere(path string, keys []Key) (*File, error) {
	f, err := Read(path, keys)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

func parse(b []byte, keys []Key) (map[string][]string, error) {
	var doc map[string]any
	if err := toml.Unmarshal(b, &doc); err != nil {
		var d *toml.DecodeError
		if errors.As(err, &d) {
			line, _ := d.Position()
			return nil, fmt.Errorf("line %d: %s", line, strings.TrimPrefix(d.Error(), "toml: "))
		}
		return nil, err
	}
	values := make(map[string][]string)
	for _, name := range slices.Sorted(maps.Keys(doc)) {
		i := slices.IndexFunc(keys, func(k Key) bool { return k.Name == name })
		if i < 0 {
			return nil, &unknown{name, keys}
		}
		v, err := texts(doc[name], keys[i].Kind)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		values[name] = v
	}
	return values, nil
}

// texts turns a value of TOML into what would be said on a command line.
func texts(v any, k Kind) ([]string, error) {
	switch v := v.(type) {
	case bool:
		if k == Flag {
			return []string{strconv.FormatBool(v)}, nil
		}
	case []any:
		if k != List {
			break
		}
		l := []string{}
		for _, e := range v {
			t, err := text(e)
			if err != nil {
				return nil, err
			}
			l = append(l, t)
		}
		return l, nil
	case map[string]any:
		if k != List {
			break
		}
		l := []string{}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			t, err := text(v[name])
			if err != nil {
				return nil, err
			}
			l = append(l, name+"="+t)
		}
		return l, nil
	default:
		if k == Flag {
			break
		}
		t, err := text(v)
		return []string{t}, err
	}
	return nil, errors.New(map[Kind]string{
		Text: `it needs a text, as in "10M", or a number`, Flag: "it needs true or false", List: `it needs a list, as in ["a", "b"]`,
	}[k])
}

func text(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	}
	return "", errors.New(`it needs texts, as in "10M", or whole numbers`)
}
