//go:build condafs_faults

package cow

import (
	"fmt"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"condafs/fault"
	"condafs/internal/failpoint"
)

// A daemon that dies while it takes a lane over leaves what the next one goes on with, whether the client lives or not.
func TestDeathInALane(t *testing.T) {
	for _, at := range []failpoint.Point{failpoint.LaneBegun, failpoint.LaneFile, failpoint.LaneMoved, failpoint.LaneInstalled} {
		for _, alive := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, client alive: %t", at, alive), func(t *testing.T) {
				w := newLaneWorld(t)
				f := makePackage(t, "tool-1.0-0", nil)
				pid, c := w.process()
				to := c.lane(f)
				unpack(t, to, f)
				var dead atomic.Bool
				var names atomic.Int32
				disarm := failpoint.Set(w.dir, func(here failpoint.Point) error {
					if here == at && (at != failpoint.LaneFile || names.Add(1) == 3) {
						dead.Store(true)
					}
					if dead.Load() {
						return fault.New("die", string(at), fault.IO, nil)
					}
					return nil
				})
				l := c.v.liveLanes()[0]
				l.taking.Lock() // nobody else takes it
				record(t, to, f)
				l.taking.Unlock()
				if _, err := c.v.takeOver(l, false); err == nil {
					t.Fatal("it did not die")
				}
				w.die()
				disarm()
				if !alive {
					w.procs.kill(pid)
				}
				w.open()
				w.openLanes()
				w.await()
				if alive {
					again := w.client(pid)
					again.has(f)
					again.noLanes()
					w.exit(pid)
				}
				if w.trust(shared+f.dist) != "verified" {
					t.Error("what was complete is lost")
				}
				_, c = w.process()
				c.has(f)
			})
		}
	}
}

// A daemon that dies while a package of rattler's gets its name has named all of it or nothing; the client tries again.
func TestDeathWhileALaneIsNamed(t *testing.T) {
	for _, at := range []failpoint.Point{failpoint.LaneBegun, failpoint.LaneFile, failpoint.LaneMoved, failpoint.LaneInstalled} {
		t.Run(string(at), func(t *testing.T) {
			w := newLaneWorld(t)
			f := makePackage(t, "tool-1.0-0", nil)
			pid, c := w.process()
			c.write(rattlerFinal+".lock", "\x00\x00\x00\x00\x00\x00\x00\x01")
			c.unpackByRattler(f)
			var dead atomic.Bool
			disarm := failpoint.Set(w.dir, func(here failpoint.Point) error {
				if here == at || dead.Load() {
					dead.Store(true)
					return fault.New("die", string(at), fault.IO, nil)
				}
				return nil
			})
			if c.tryRename(rattlerTemp, rattlerFinal) == nil {
				t.Fatal("it did not die")
			}
			w.die()
			disarm()
			w.open()
			w.openLanes()
			w.await()
			c = w.client(pid)
			if c.exists(rattlerFinal) {
				t.Error("it has its name before it is complete")
			}
			c.rename(rattlerTemp, rattlerFinal)
			c.hasByRattler(f)
			c.noLanes()
			w.exit(pid)
			if w.trust("u4711/"+rattlerFinal) != "consistent" {
				t.Error("lost")
			}
		})
	}
}

// Without room, a package stays out of reach until there is some, and is not lost when its client has ended.
func TestLaneOnAFullDisk(t *testing.T) {
	w := newLaneWorld(t)
	f := makePackage(t, "tool-1.0-0", nil)
	pid, c := w.process()
	to := c.lane(f)
	unpack(t, to, f)
	free := failpoint.Set(w.dir, func(here failpoint.Point) error {
		if here == failpoint.LaneFile {
			return fault.New("write", "disk", fault.Full, unix.ENOSPC)
		}
		return nil
	})
	record(t, to, f)
	if c.isDirAt("pkgs/" + f.dist) {
		t.Error("taken over without room")
	}
	w.exit(pid)
	if infos := w.e.Sessions(); len(infos) != 1 || infos[0].State != "waiting" {
		t.Fatalf("sessions: %+v", infos)
	}
	free()
	other, c := w.process()
	c.write("pkgs/urls.txt", "x\n")
	w.exit(other)
	w.await()
	if w.trust(shared+f.dist) != "verified" {
		t.Error("lost")
	}
	w.tidy()
}
