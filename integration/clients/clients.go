// Package clients holds the Python clients of the integration tests. The one that others use too is embedded.
package clients

import _ "embed"

// Rattler is rattler_client.py, which installs with py-rattler.
//
//go:embed rattler_client.py
var Rattler string
