#!/usr/bin/env bash
# Runs everything that must hold: formatting, vet, staticcheck, and all tests under the race detector
# (real mounts and real clients included). Installs what is missing on Debian and Ubuntu.
#   ./test.sh          everything
#   ./test.sh -short   the fast subset
set -euo pipefail
cd "$(dirname "$0")"
. ./scripts/prerequisites.sh

unformatted=$(gofmt -l .)
if [ -n "$unformatted" ]; then
    echo "test: not gofmt-clean:" "$unformatted" >&2
    exit 1
fi
go vet ./...
go tool staticcheck ./...
go test -race -timeout 40m "$@" ./...
