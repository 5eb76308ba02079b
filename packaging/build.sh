#!/usr/bin/env bash
# Builds dist/ARCH/condafs, a static program that is the same for everybody who builds the same commit, and packages of it.
#   packaging/build.sh                 for this machine: the program, a .deb and an .rpm
#   packaging/build.sh amd64 arm64     for these
#   VERSION=1.2.0 packaging/build.sh   a release
set -euo pipefail
cd "$(dirname "$0")/.."
arches=("$@")
[ "${#arches[@]}" -gt 0 ] || arches=("$(go env GOARCH)")
# What is no release sorts before the first one, and by time.
seconds=$(git show -s --format=%ct HEAD)
VERSION=${VERSION:-0.0.0~$(date -u -d "@$seconds" +%Y%m%d%H%M%S).$(git rev-parse --short=12 HEAD)}
MTIME=$(date -u -d "@$seconds" +%Y-%m-%dT%H:%M:%SZ)
MAINTAINER=${MAINTAINER:-condafs <root@localhost>}
export VERSION MAINTAINER
export CGO_ENABLED=0 GOOS=linux SOURCE_DATE_EPOCH=$seconds
for ARCH in "${arches[@]}"; do
    export ARCH
    # The commit's stamps depend on the state of the checkout, and paths and ids on the machine: all are left out.
    GOARCH=$ARCH go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.release=$VERSION -X main.releaseTime=$MTIME" -o "dist/$ARCH/condafs" ./cmd/condafs
done
# From the commands, by a program that runs here.
rm -rf dist/share
if [ -x "dist/$(go env GOHOSTARCH)/condafs" ]; then
    "dist/$(go env GOHOSTARCH)/condafs" generate dist/share
else
    GOOS=$(go env GOHOSTOS) GOARCH=$(go env GOHOSTARCH) go run -ldflags "-X main.release=$VERSION -X main.releaseTime=$MTIME" ./cmd/condafs generate dist/share
fi
for ARCH in "${arches[@]}"; do
    export ARCH
    for kind in deb rpm; do
        GOARCH=$(go env GOHOSTARCH) GOOS=$(go env GOHOSTOS) go tool -modfile=packaging/tools.mod nfpm package --config packaging/nfpm.yaml --packager "$kind" --target dist/
    done
done
