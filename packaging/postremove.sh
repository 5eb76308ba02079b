#!/bin/sh
# The store stays, also when the package is purged: what lies in it may have taken days to fetch.
set -e
if [ -d "${DPKG_ROOT:-}/run/systemd/system" ]; then systemctl daemon-reload; fi
# The mount point was immutable, so that nobody left anything there while nothing was mounted.
point="${DPKG_ROOT:-}/var/cache/condafs"
if [ "$1" = purge ] && [ -d "$point" ]; then
    chattr -i "$point" 2>/dev/null || true
    rmdir "$point" 2>/dev/null || true
fi
if [ "$1" = purge ] && [ -d "${DPKG_ROOT:-}/var/lib/condafs" ]; then
    echo "condafs: the store in /var/lib/condafs stays; remove it by hand if nobody needs it" >&2
fi
