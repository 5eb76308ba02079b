package cow

import (
	"testing"

	"condafs/internal/fieldtest"
)

// What becomes of each field when another process takes over. Who adds one has to say it here: a field that is
// forgotten is lost at each upgrade.
var handedOver = []struct {
	of       any
	image    string // fields that are in the image
	restored string // made anew from others, or from the options
	idle     string // says nothing while the engine is paused
}{
	{Engine{}, "head sessions", "store o log owner gid inv slots leases accounting accounts members foreign",
		"mu ctx stop waits unwait closed paused running idle flights counts"}, // of flights, what sessions are on the way with
	{Session{}, "id uid gid start explicit foreign started snap hold view ticket rattlerTicket suspended state members lastUse killed outcome report failure jobs items stalled held trees removed pins recorded gone",
		"e", "once work publishing recording awaiting changed mu laneWatch laneWait laneSum laneSeen archives hashing"},
	{View{}, "root retired gained gens markedUnseen handles lent", "upperDir rootfd workfd uid gid refs tmp dirs invalid onListing onLocking onReading lower linked orphans account pathBytes lanes", // of lanes, which live: nodes tell
		"copies queue mu closed removing hmu"},
	{Node{}, "id typ ino refs links lower upper names mark linked split away orphan last lane", "view children handles", "copying dropped pins"},
	{Handle{}, "n f writable lower passthrough", "", "released"},
	{lane{}, "id born", "node", "taking look told"},
	{remains{}, "Attr target", "", ""},
	{link{}, "dir name", "", ""},
	{upperName{}, "typ whiteout marked ino", "", ""},
	{mark{}, "ino mode hasMode whiteout", "", ""},
	{object{}, "TreeEntry ino path pkg at", "", ""},
	{packageDir{}, "digest seed", "", ""},
	{generations{}, "last at moved", "", ""},
	{gained{}, "dirs seen", "file log account", ""},
	{gain{}, "obj entry gone", "", ""},
	{job{}, "complete again", "", "running why"},
	{item{}, "path public base settled manifest before", "unit", ""},
	{part{}, "path gen shown public overlay", "unit", ""},
	{form{}, "entry tree", "", ""},
	{flight{}, "roots", "", "events stalled"},
	{headView{}, "view snap", "e", "mu gone"},
	{StartOptions{}, "PID UID GID Label Command Ephemeral fresh BesideShelf OnFailure", "", ""},
	{member{}, "ID UID", "", ""},
}

func TestEveryFieldIsHandedOver(t *testing.T) {
	for _, h := range handedOver {
		fieldtest.All(t, h.of, "put what is new into the image (image.go), or say here why not", h.image, h.restored, h.idle)
	}
}
