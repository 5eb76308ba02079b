package daemon

import "condafs/observe"

// observe begins to serve figures and the page, if that is wanted.
func (d *daemon) observe() error {
	c := &d.config
	if c.Metrics == "" {
		return nil
	}
	a, err := observe.ParseAddress(c.Metrics)
	if err != nil {
		return err
	}
	d.watched, err = observe.Start(observe.Options{Address: a, Backend: backend{d}, Owner: d.owner, Others: c.AllowOther, Logger: c.Logger})
	if err != nil {
		return err
	}
	c.Logger.Info("serving metrics and the page", "at", a.URL())
	return nil
}

// observeAgain is observe for a mount that is in use: it is not given up because nobody can watch it.
func (d *daemon) observeAgain() {
	if err := d.observe(); err != nil {
		d.config.Logger.Error("nobody can watch this mount", "err", err.Error())
	}
}

// unobserve ends it, before the store is closed.
func (d *daemon) unobserve() {
	if d.watched == nil {
		return
	}
	if err := d.watched.Close(); err != nil {
		d.config.Logger.Warn("serving metrics", "err", err.Error())
	}
	d.watched = nil
}
