#!/usr/bin/env bash
# From a clean clone to a mount that several conda clients share safely: installs what is missing (Debian, Ubuntu),
# builds ./condafs, mounts it, shows the problem and its cure, and says how to point conda at the mount.
#   ./quickstart.sh [MOUNTPOINT]        default: ~/condafs
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here"
. ./scripts/prerequisites.sh

mountpoint=${1:-$HOME/condafs}
echo "condafs: building"
CGO_ENABLED=0 go build -o "$here/condafs" ./cmd/condafs

mkdir -p "$mountpoint"
if [ -e "$mountpoint/.condafs" ]; then
    echo "condafs: $mountpoint is mounted already"
else
    "$here/condafs" mount "$mountpoint"
fi
"$here/condafs" demo

cat <<END

The mount is ready. For a shell and all it starts:

    eval "\$($here/condafs env --mount $mountpoint)"

or for one command, in a session of its own:

    $here/condafs run --mount $mountpoint -- conda create -n test python

To take your existing cache over:   $here/condafs import --mount $mountpoint ~/miniforge3/pkgs
To see what is there:               $here/condafs status --mount $mountpoint
To stop:                            $here/condafs umount $mountpoint
END
