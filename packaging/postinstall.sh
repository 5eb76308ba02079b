#!/bin/sh
# Of both kinds of packages. A daemon that runs goes on, and this program takes over from the
# old one. The first installation starts nothing: that is the administrator's to decide.
set -e
[ -d "${DPKG_ROOT:-}/run/systemd/system" ] || exit 0
systemctl daemon-reload
for unit in $(systemctl list-units --plain --no-legend --state=active 'condafs.service' 'condafs@*.service' | cut -d' ' -f1); do
    systemctl reload "$unit" || echo "condafs: $unit goes on with the old program; see: systemctl status $unit" >&2
done
