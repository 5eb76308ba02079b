package main

import (
	"strings"

	"github.com/spf13/cobra"

	"condafs/control"
)

// completeSession offers the live sessions. A shell that asks for completion gets no
// error messages: without a daemon there is nothing to offer.
func (a *app) completeSession(t *target) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var names []string
		if c, err := a.client(*t); err == nil && len(args) == 0 {
			defer c.Close()
			l, err := c.Sessions(cmd.Context())
			if err != nil {
				l = nil
			}
			for _, s := range l {
				names = append(names, cobra.CompletionWithDesc(s.ID, strings.TrimSpace(s.Label+" "+s.State)))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completePackage offers the packages of the newest snapshot.
func (a *app) completePackage(t *target) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
		var names []string
		if len(args) == 0 {
			_ = a.with(*t, false, func(api control.API) error {
				l, err := api.Packages(cmd.Context())
				for _, p := range l {
					if strings.HasPrefix(p.Name, prefix) {
						names = append(names, p.Name)
					}
				}
				return err
			})
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
