package conda

const (
	// maxName and maxPath are what Linux takes as one name and one path.
	maxName = 255
	maxPath = 4096

	// maxPathsJSON bounds info/paths.json: some 300 bytes for each of half a
	// million files.
	maxPathsJSON = 192 << 20
	// maxPathEntries and maxPathEntry bound what is in it: entries, and bytes of one.
	maxPathEntries = defaultMaxFiles
	maxPathEntry   = 64 << 10
	// maxRecord bounds info/index.json and info/repodata_record.json.
	maxRecord = 8 << 20

	defaultMaxFiles = 500_000
	// maxDepth bounds directories inside of each other. Few packages have 20.
	maxDepth = 128
	// pathBytes is what a path may have on average: the memory that all of a package's
	// paths take is bounded by it.
	pathBytes = 256
)

// Limits bound what one package may hold, so that a small archive cannot fill
// the disk or the memory. A zero field means its default.
type Limits struct {
	MaxBytes int64 // of all files together, uncompressed; default 64 GiB
	MaxFiles int64 // members of any type, and directories that they imply; default 500,000
	// MaxRatio is how many uncompressed bytes may come out of one byte of the
	// archive; default 1,000. The first 256 MiB are free: little files compress
	// by any factor and do no harm.
	MaxRatio int64
}

const ratioFree = 256 << 20

func (l Limits) withDefaults() Limits {
	if l.MaxBytes <= 0 {
		l.MaxBytes = 64 << 30
	}
	if l.MaxFiles <= 0 {
		l.MaxFiles = defaultMaxFiles
	}
	if l.MaxRatio <= 0 {
		l.MaxRatio = 1000
	}
	return l
}

// bytesFor returns how many bytes may come out of an archive of that size.
func (l Limits) bytesFor(archive int64) int64 {
	if l.MaxRatio < (l.MaxBytes-ratioFree)/max(archive, 1) {
		return ratioFree + l.MaxRatio*archive
	}
	return l.MaxBytes
}
