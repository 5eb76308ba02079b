#!/bin/sh
# Before the program is removed, not before it is replaced: dpkg says "remove", rpm says 0.
set -e
case $1 in remove | 0) ;; *) exit 0 ;; esac
[ -d "${DPKG_ROOT:-}/run/systemd/system" ] || exit 0
systemctl disable --now condafs-gc.timer condafs.service || true
for unit in $(systemctl list-units --plain --no-legend 'condafs@*.service' 'condafs-gc@*.timer' | cut -d' ' -f1); do
    systemctl disable --now "$unit" || true
done
