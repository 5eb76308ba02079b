package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"condafs/fault"
	"condafs/observe"
)

// observing is what the flags of mount say about being watched.
type observing struct {
	address string // "" is nowhere
}

func (o *observing) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.address, "metrics", "", "serve metrics for Prometheus and a page for browsers at this `address`: PORT (this machine only), HOST:PORT or unix:PATH")
}

// resolve checks what was said, and has it in full.
func (o *observing) resolve() error {
	if o.address == "" || o.address == "off" {
		o.address = ""
		return nil
	}
	a, err := observe.ParseAddress(o.address)
	if err != nil {
		return fault.New("mount", "", fault.Usage, fmt.Errorf("--metrics: %w", err))
	}
	o.address = a.String()
	return nil
}

// args are the flags that say the same, also that it is nowhere: the environment may say otherwise.
func (o *observing) args() []string { return []string{"--metrics", o.address} }
