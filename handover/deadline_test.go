package handover

import (
	"testing"
	"time"
)

func TestDeadline(t *testing.T) {
	d := Within(time.Hour, func() { t.Error("it is not late") })
	d.Met()
	if d.timer.Stop() {
		t.Error("it still runs")
	}
	late := make(chan struct{})
	d = Within(0, func() { close(late) })
	<-late
	go func() {
		d.Met()
		panic("the program goes on, though another one is to take its place")
	}()
}
