// Package service speaks to the service manager that has started this process, as systemd's
// sd_notify(3) has it: that the service is ready, how it is, that another program is taking
// over, and, again and again, that it really works. Without such a manager nothing happens.
//
// A manager that cannot be reached is logged, and is no reason to stop serving: it decides
// by itself what to do about a service that it does not hear of.
package service
