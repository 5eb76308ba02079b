#!/bin/sh
# The store stays, also when the package is purged: what lies in it may have taken days to fetch.
set -e
if [ -d "${DPKG_ROOT:-}/run/systemd/system" ]; then systemctl daemon-reload; fi
if [ "$1" = purge ] && [ -d "${DPKG_ROOT:-}/var/lib/condafs" ]; then
    echo "condafs: the store in /var/lib/condafs stays; remove it by hand if nobody needs it" >&2
fi
