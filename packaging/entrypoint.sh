#!/bin/sh
# Mounts the cache, runs the command in a session, and unmounts: with its exit status. A command
# of condafs itself is run as it is.
set -e
condafs mount >&2
status=0
if [ "$1" = condafs ]; then
    "$@" || status=$?
else
    condafs run -- "$@" || status=$?
fi
condafs umount --lazy "$CONDAFS_MOUNT" >&2
exit "$status"
