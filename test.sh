#!/usr/bin/env bash
# Runs everything that must hold: formatting, vet, staticcheck, and all tests under the race detector
# (real mounts and real clients included). Installs what is missing on Debian and Ubuntu.
#   ./test.sh                  what CI runs
#   CONDAFS_LONG=1 ./test.sh   the longest cases too
#   ./test.sh -run NAME …      with further arguments of go test
set -euo pipefail
cd "$(dirname "$0")"
. ./scripts/prerequisites.sh
prerequisites test

unformatted=$(gofmt -l .)
if [ -n "$unformatted" ]; then
    echo "test: not gofmt-clean:" "$unformatted" >&2
    exit 1
fi
# With the tag, the code has the points at which tests let it die (internal/failpoint). The binary that the
# integration tests mount is built without it, but where they need the points.
for tags in "" condafs_faults; do
    go vet -tags "$tags" ./...
    go tool staticcheck -tags "$tags" ./...
done
limit=20m # of one package: a hang must show where it is
[ -z "${CONDAFS_LONG:-}" ] || limit=90m
go test -race -tags condafs_faults -timeout "$limit" "$@" ./...
