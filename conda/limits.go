package conda

const (
	// maxName and maxPath are what Linux takes as one name and one path.
	maxName = 255
	maxPath = 4096
)
