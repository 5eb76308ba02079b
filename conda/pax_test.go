package conda

import "fmt"

// paxRecord encodes one extended header: its own length comes first.
func paxRecord(key, value string) string {
	n := len(key) + len(value) + 3
	for {
		r := fmt.Sprintf("%d %s=%s\n", n, key, value)
		if len(r) == n {
			return r
		}
		n = len(r)
	}
}

func octal11(n int) []byte { return []byte(fmt.Sprintf("%011o\x00", n)) }

// fixChecksum makes a changed tar header valid again.
func fixChecksum(h []byte) {
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
}
