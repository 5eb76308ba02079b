# shellcheck shell=bash
# Sourced by the other scripts: installs what condafs needs to be built and run, where it is missing, on Debian and
# Ubuntu. Elsewhere it names what is missing and stops.
. ./scripts/working.sh

# prerequisites build|test: makes ready what building, or testing with the race detector, needs, and puts the right Go
# first in PATH.
prerequisites() {
    local packages=()
    command -v fusermount3 >/dev/null || packages+=(fuse3)
    command -v python3 >/dev/null || packages+=(python3)
    python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
    command -v go >/dev/null || packages+=(golang-go)
    [ -e /etc/ssl/certs/ca-certificates.crt ] || packages+=(ca-certificates)
    if [ "$1" = test ] && ! echo '#include <stdlib.h>' | gcc -E - >/dev/null 2>&1; then
        packages+=(gcc libc6-dev)
    fi
    if [ "$1" = test ]; then # others' suites for file systems (integration/posix)
        command -v fio >/dev/null || packages+=(fio)
        command -v stress-ng >/dev/null || packages+=(stress-ng)
        command -v systemd-analyze >/dev/null || packages+=(systemd) # looks at the units; nothing of it runs
        if command -v cargo >/dev/null && [ ! -e /usr/include/sys/acl.h ]; then
            packages+=(libacl1-dev)
        fi
    fi
    if [ "${#packages[@]}" -gt 0 ]; then
        install_packages "${packages[@]}"
    fi
    # Python's own tests; the system's Python has them in a package that is named by its version.
    if [ "$1" = test ] && ! python3 -c 'import test.test_os' 2>/dev/null; then
        install_packages "libpython$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')-testsuite"
    fi
    newer_go
    # Go stamps what it builds with git's commit, and gives up where git refuses a clone that belongs to another user.
    if ! git rev-parse HEAD >/dev/null 2>&1; then
        GOFLAGS="$(go env GOFLAGS) -buildvcs=false"
        export GOFLAGS
    fi
    if [ ! -c /dev/fuse ]; then
        echo "condafs: /dev/fuse is missing; run 'modprobe fuse' (in a container: --device /dev/fuse --cap-add SYS_ADMIN)" >&2
        return 1
    fi
    if [ ! -r /dev/fuse ] || [ ! -w /dev/fuse ]; then
        echo "condafs: you may not open /dev/fuse; let everybody open it, as most systems do, by root: chmod 666 /dev/fuse" >&2
        return 1
    fi
}

install_packages() {
    local as_root=()
    if ! command -v apt-get >/dev/null; then
        echo "condafs: please install: $*" >&2
        return 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "condafs: there is no sudo; please install as root: apt-get install $*" >&2
            return 1
        fi
        echo "condafs: sudo is needed once, to install $*"
        sudo -v
        as_root=(sudo)
    fi
    working "updating the list of packages" "${as_root[@]}" apt-get update -qq
    working "installing $*" "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
    hash -r
}

# newer_go sees to a Go that is new enough for go.mod. Since 1.21 Go fetches the one that go.mod names by itself, unless it
# is set not to; older ones (1.19 in Debian 12, 1.18 in Ubuntu 22.04) can't. But Go's toolchains are Go modules, and what
# the newer ones do for themselves the older ones can be told to do: download the official toolchain like any module,
# verified by Go's checksum database, and make its commands executable, which module files are not.
newer_go() {
    local version module dir file
    if go list -m >/dev/null 2>&1; then
        return
    fi
    version=$(sed -n 's/^go \([0-9.]*\)$/\1/p' go.mod)
    # Not from here: an old Go can't read this go.mod.
    module=golang.org/toolchain@v0.0.1-go$version.$(cd / && go env GOHOSTOS)-$(cd / && go env GOHOSTARCH)
    dir=$(cd / && go env GOMODCACHE)/$module
    if [ ! -x "$dir/bin/go" ]; then
        working "this system has $(cd / && go env GOVERSION); fetching Go $version" env -C / go mod download "$module"
        # A module can't hold a go.mod below its root, so the toolchain has these under another name.
        find "$dir/src" -name _go.mod | while read -r file; do
            chmod u+w "${file%/*}"
            cp "$file" "${file%/*}/go.mod"
        done
        chmod -R a+x "$dir/pkg/tool" "$dir/bin"
    fi
    PATH=$dir/bin:$PATH
    export PATH
    hash -r
    go list -m >/dev/null # says what is wrong, if something is
}
