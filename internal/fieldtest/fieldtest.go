// Package fieldtest tells tests of fields that somebody has added to a type without saying what becomes of them.
package fieldtest

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// All fails the test unless told, which are lists of names with spaces between, name just the fields of a struct, each once.
// advice says what to do about a field that is not named.
func All(t testing.TB, of any, advice string, told ...string) {
	t.Helper()
	typ := reflect.TypeOf(of)
	names := strings.Fields(strings.Join(told, " "))
	var has []string
	for i := range typ.NumField() {
		has = append(has, typ.Field(i).Name)
	}
	slices.Sort(names)
	slices.Sort(has)
	if !slices.Equal(names, has) {
		t.Errorf("%s has the fields %v; %s: %v", typ.Name(), has, advice, names)
	}
}
