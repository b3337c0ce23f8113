#!/usr/bin/env bash
# Makes the Docker image `proving-ground-debian:base`: a minimal Debian, with what deploy/worker.Dockerfile asks for, so that nothing is
# fetched for that. What exists is not made again.
# Needs docker, and what make-root.sh needs.
set -euo pipefail
cd "$(dirname "$0")"
image=proving-ground-debian

# A label holds the hash of all that it is made of.
hash=$(cat /etc/os-release make-base.sh make-root.sh | sha256sum | cut -c 1-16)
label="{{ index .Config.Labels \"$image-hash\" }}"
if [[ $(docker image inspect -f "$label" "$image:base" 2>/dev/null) == "$hash" ]]; then
    echo "$image:base is up to date ($hash)"
    exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
./make-root.sh "$work/rootfs" make,procps,python3,python3-pytest
tar -C "$work/rootfs" --numeric-owner --xattrs -cf - . |
    docker import --change "LABEL $image-hash=$hash" --change "LABEL $image=1" - "$image:base"
# What had this tag before is of no more use.
docker image prune --force --filter "label=$image"
