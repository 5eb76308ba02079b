package posix

import (
	"testing"

	"condafs/internal/longrun"
)

// TestPython runs the tests that CPython has for what it needs of a file system, with the current directory and TMPDIR there.
func TestPython(t *testing.T) {
	program := fromSystem(t, "python3")
	args := []string{program, testdata(t, "python.py")}
	if !longrun.Wanted() {
		args = append(args, "--quick")
	}
	compare(t, "python", func(p *place) (results, error) {
		return output(p.command("python", args...), tabbed)
	})
}

// TestSQLite has processes write and read one database at once in each journal mode, WAL above all.
func TestSQLite(t *testing.T) {
	program, transactions := fromSystem(t, "python3"), "400"
	if !longrun.Wanted() {
		transactions = "20"
	}
	compare(t, "sqlite", func(p *place) (results, error) {
		return output(p.command("sqlite", program, testdata(t, "sqlite.py"), transactions), tabbed)
	})
}
