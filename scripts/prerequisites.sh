# Sourced by the other scripts: installs what condafs needs to be built and tested, where it is missing,
# on Debian and Ubuntu. Elsewhere it names what is missing and stops.

need_packages=()
command -v fusermount3 >/dev/null || need_packages+=(fuse3)
command -v gcc >/dev/null || need_packages+=(gcc libc6-dev)
command -v python3 >/dev/null || need_packages+=(python3)
python3 -c 'import ensurepip, venv' 2>/dev/null || need_packages+=(python3-venv)
# Go 1.21 and later fetch the toolchain that go.mod asks for by themselves.
go_is_new_enough() {
    command -v go >/dev/null || return 1
    local v
    v=$(go env GOVERSION 2>/dev/null | sed -E 's/^go([0-9]+)\.([0-9]+).*/\1 \2/')
    # shellcheck disable=SC2086
    set -- $v
    [ "${1:-0}" -gt 1 ] || { [ "${1:-0}" -eq 1 ] && [ "${2:-0}" -ge 21 ]; }
}
go_is_new_enough || need_packages+=(golang-go)

if [ "${#need_packages[@]}" -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "condafs: please install: ${need_packages[*]}" >&2
        exit 1
    fi
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    echo "condafs: installing ${need_packages[*]}"
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq "${need_packages[@]}" >/dev/null
    hash -r
fi

if ! go_is_new_enough; then
    echo "condafs: this system's Go is older than 1.21; install Go 1.26 from https://go.dev/dl and try again" >&2
    exit 1
fi
if [ ! -c /dev/fuse ]; then
    echo "condafs: /dev/fuse is missing; run 'modprobe fuse' (in a container: --device /dev/fuse --cap-add SYS_ADMIN)" >&2
    exit 1
fi
