#!/usr/bin/env bash
# From a clean clone to a mount that several conda clients share safely: installs what is missing (Debian, Ubuntu),
# builds ./condafs, mounts it, runs real clients at once on a plain directory and on condafs, judges every byte of what
# they leave, and says how to point conda at the mount.
#   ./quickstart.sh [MOUNTPOINT]        default: ~/conda-cache (a clone often lies at ~/condafs)
set -euo pipefail
mountpoint=$(realpath -m -- "${1:-$HOME/conda-cache}")
cd "$(dirname "$0")"
here=$PWD
. ./scripts/prerequisites.sh
prerequisites build

working "building ./condafs; that takes a minute or two the first time" env CGO_ENABLED=0 go build -o condafs ./cmd/condafs
if [ -e "$mountpoint/.condafs" ]; then
    echo "condafs: $mountpoint is mounted already"
else
    [ -e "$mountpoint" ] || mkdir -p -- "$mountpoint"
    ./condafs mount "$mountpoint"
fi

echo "condafs: eight real clients at once, on a plain directory and on a mount and a store of their own"
python3 integration/demonstration -n 8 --condafs ./condafs

cat <<END

The mount is ready. For a shell and all it starts:

    eval "\$($here/condafs env --mount $mountpoint)"

or for one command, in a session of its own:

    $here/condafs run --mount $mountpoint -- conda create -n test python

To take your existing cache over:   $here/condafs import --mount $mountpoint ~/miniforge3/pkgs
To see what is there:               $here/condafs status --mount $mountpoint
To stop:                            $here/condafs umount $mountpoint
END
