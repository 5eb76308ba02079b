package demo

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Column counts what the clients of one side did and what was left broken. All but the first two are what should be 0.
type Column struct {
	Clients            int `json:"clients"`
	Environments       int `json:"environments"`
	ClientErrors       int `json:"client_errors"`   // clients that ended with an error
	SilentFailures     int `json:"silent_failures"` // clients that ended with status 0 and no right environment
	EnvironmentsBroken int `json:"environments_broken"`
	FilesMissing       int `json:"files_missing"`
	FilesWrong         int `json:"files_wrong"`
	ArchivesCorrupt    int `json:"archives_corrupt"`
	ArchivesMissing    int `json:"archives_missing"`
	PackagesBroken     int `json:"packages_broken"`

	Seconds     float64  `json:"seconds"`
	BytesServed int64    `json:"bytes_served"`
	Errors      []string `json:"errors"` // one example of each kind of error
}

// Broken is the number of things that went wrong.
func (c *Column) Broken() int {
	return c.ClientErrors + c.SilentFailures + c.EnvironmentsBroken + c.FilesMissing + c.FilesWrong + c.ArchivesCorrupt + c.ArchivesMissing + c.PackagesBroken
}

// Report is the result of the demonstration.
type Report struct {
	N        int    `json:"n"`
	Packages int    `json:"packages"`
	Files    int    `json:"files"`
	Plain    Column `json:"plain"`
	Condafs  Column `json:"condafs"`
	// Verified says that re-hashing everything in the head found no fault. VerifyOutput is what it said.
	Verified     bool   `json:"verified"`
	VerifyOutput string `json:"verify_output,omitempty"`
}

// OK says whether condafs kept its promise: nothing broken, and the head verified.
func (r *Report) OK() bool { return r.Verified && r.Condafs.Broken() == 0 }

// WriteTable prints the two columns.
func (r *Report) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	row := func(name string, a, b any) { fmt.Fprintf(t, "%s\t%v\t%v\t\n", name, a, b) }
	row(fmt.Sprintf("%d processes at once, %d packages", r.N, r.Packages), "plain directory", "condafs")
	for _, l := range []struct {
		name string
		of   func(*Column) int
	}{
		{"clients", func(c *Column) int { return c.Clients }},
		{"client errors", func(c *Column) int { return c.ClientErrors }},
		{"silent failures (exit status 0)", func(c *Column) int { return c.SilentFailures }},
		{"environments missing or broken", func(c *Column) int { return c.EnvironmentsBroken }},
		{"files missing in environments", func(c *Column) int { return c.FilesMissing }},
		{"files with wrong bytes", func(c *Column) int { return c.FilesWrong }},
		{"archives with wrong hash", func(c *Column) int { return c.ArchivesCorrupt }},
		{"archives lost", func(c *Column) int { return c.ArchivesMissing }},
		{"packages broken in the cache", func(c *Column) int { return c.PackagesBroken }},
	} {
		row(l.name, l.of(&r.Plain), l.of(&r.Condafs))
	}
	row("seconds", fmt.Sprintf("%.1f", r.Plain.Seconds), fmt.Sprintf("%.1f", r.Condafs.Seconds))
	row("MB downloaded", fmt.Sprintf("%.1f", float64(r.Plain.BytesServed)/1e6), fmt.Sprintf("%.1f", float64(r.Condafs.BytesServed)/1e6))
	verified := "NOT verified"
	if r.Verified {
		verified = "verified"
	}
	row("head, everything re-hashed", "-", verified)
	return t.Flush()
}
