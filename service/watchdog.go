package service

import (
	"context"
	"os"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Watch tells the manager, twice as often as it wants to hear it, that the service works,
// if works returns nil; then status goes along. It goes on until the returned function is
// called. A call of works that never returns is what the manager's patience is for: it
// hears nothing, and ends the service.
func (m *Manager) Watch(works func() error, status func() string) (stop func()) {
	if m.every == 0 || os.Getenv("NOTIFY_SOCKET") == "" {
		return func() {}
	}
	ctx, stop := context.WithCancel(context.Background())
	go m.watch(ctx, works, status)
	return stop
}

func (m *Manager) watch(ctx context.Context, works func() error, status func() string) {
	t := time.NewTicker(m.every / 2)
	defer t.Stop()
	for {
		err := works()
		if ctx.Err() != nil {
			return // it may have been broken by what we were stopped for
		}
		if err != nil {
			m.log.Error("the service manager's watchdog is not fed", "err", err.Error())
		} else {
			m.tell(daemon.SdNotifyWatchdog, status())
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func microseconds(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }
