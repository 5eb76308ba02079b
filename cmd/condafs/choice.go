package main

import (
	"fmt"
	"slices"
	"strings"

	"condafs/fault"
)

// checkChoice tells if a flag of a command is none of what it may be.
func checkChoice(command, flag, value string, choices []string) error {
	if slices.Contains(choices, value) {
		return nil
	}
	return fault.New(command, "", fault.Usage, fmt.Errorf("--%s %q is none of %s", flag, value, strings.Join(choices, ", ")))
}
