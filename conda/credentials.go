package conda

import (
	"bytes"
	"regexp"
)

var (
	anyURL = regexp.MustCompile(`[a-zA-Z][a-zA-Z0-9+.-]*:(?://|\\/\\/)[^\s"<>]*`)
	// conda's split_anaconda_token takes what stands behind the first "/t/" for a token.
	channelToken = regexp.MustCompile(`(?:/|\\/)t(?:/|\\/)[a-zA-Z0-9_.~%-]+(/|\\/|$)`)
	schemeEnd    = regexp.MustCompile(`:(?://|\\/\\/)`)
)

// StripCredentials takes user names, passwords and channel tokens
// (https://user:password@host/t/TOKEN/channel) out of the addresses in b, the text of
// a record, and reports whether there were any. Clients write them into
// repodata_record.json, which other users come to see; none needs them there: what is
// downloaded again has its address from the repodata.
func StripCredentials(b []byte) ([]byte, bool) {
	out := anyURL.ReplaceAllFunc(b, stripURL)
	return out, !bytes.Equal(out, b)
}

func stripURL(url []byte) []byte {
	if bytes.HasPrefix(url, []byte("file:")) {
		return url // "/t/x" is a directory there
	}
	start := schemeEnd.FindIndex(url)[1]
	authority := url[start:]
	if end := bytes.IndexAny(authority, `/\?#`); end >= 0 {
		authority = authority[:end]
	}
	rest := url[start:]
	if at := bytes.LastIndexByte(authority, '@'); at >= 0 {
		rest = rest[at+1:]
	}
	if token := channelToken.FindSubmatchIndex(rest); token != nil {
		rest = append(bytes.Clone(rest[:token[0]]), rest[token[2]:]...)
	}
	return append(bytes.Clone(url[:start]), rest...)
}
