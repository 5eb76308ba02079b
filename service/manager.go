package service

import (
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Manager is who has started this process, or nobody. It is safe for concurrent use.
type Manager struct {
	log   *slog.Logger
	every time.Duration // how often it wants to hear of us; 0: never

	mu     sync.Mutex
	failed bool   // the last message did not get through
	said   string // the last status
}

// Started returns the manager that $NOTIFY_SOCKET and $WATCHDOG_USEC name.
func Started(log *slog.Logger) *Manager {
	m := &Manager{log: log}
	var err error
	if m.every, err = daemon.SdWatchdogEnabled(false); err != nil {
		log.Warn("no watchdog", "err", err.Error())
	}
	return m
}

// Ready says that the service works, also after Reloading.
func (m *Manager) Ready(status string) { m.tell(daemon.SdNotifyReady, status) }

// Reloading says that the service changes over to something else. Ready follows.
func (m *Manager) Reloading(status string) {
	var ts unix.Timespec
	state := daemon.SdNotifyReloading
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err == nil {
		state += "\nMONOTONIC_USEC=" + microseconds(time.Duration(ts.Nano()))
	}
	m.tell(state, status)
}

// Stopping says that the service is about to end.
func (m *Manager) Stopping(status string) { m.tell(daemon.SdNotifyStopping, status) }

// Failed says why the service is about to end.
func (m *Manager) Failed(why string) { m.tell("", why) }

// tell sends lines of assignments, and a status for people if it is another than the last.
func (m *Manager) tell(state, status string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if status = oneLine(status); status != m.said {
		m.said = status
		state = strings.TrimPrefix(state+"\nSTATUS="+status, "\n")
	}
	if state == "" {
		return
	}
	_, err := daemon.SdNotify(false, state)
	if err != nil && !m.failed {
		m.log.Warn("the service manager does not listen", "err", err.Error())
	}
	m.failed = err != nil
}

// oneLine keeps a status from being taken for other assignments.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}
