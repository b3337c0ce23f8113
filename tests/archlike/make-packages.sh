#!/usr/bin/env bash
# Makes the packages of the local repository with the real makepkg; make-base.sh runs it in a container, with a folder at /build.
set -euo pipefail
cd /build
# makepkg asks pacman what is installed, and only root can make the database that is not there yet.
pacman -T
# It refuses to work for root.
useradd --home-dir /build builder
chown -R builder: .
for package in packages/*; do
    setpriv --reuid=builder --regid=builder --clear-groups \
        env -C "$package" HOME=/build PKGDEST=/build/repo makepkg --config /build/makepkg.conf --nodeps
done
chown -R root: .
repo-add --quiet repo/archlike.db.tar.gz repo/*.pkg.tar.zst
