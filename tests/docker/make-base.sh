#!/usr/bin/env bash
# Makes the Docker image `proving-ground-debian:base`: a minimal Debian of this machine's release, so that programs built here run
# there. What exists is not made again.
# Needs root, docker, debootstrap, and Debian's apt.
set -euo pipefail
cd "$(dirname "$0")"
image=proving-ground-debian

# A label holds the hash of all that it is made of.
codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
hash=$({ echo "$codename"; cat make-base.sh; } | sha256sum | cut -c 1-16)
label="{{ index .Config.Labels \"$image-hash\" }}"
if [[ $(docker image inspect -f "$label" "$image:base" 2>/dev/null) == "$hash" ]]; then
    echo "$image:base is up to date ($hash)"
    exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The mirror and the proxy are those of this machine's apt.
# shellcheck disable=SC2016 # apt puts a value there
mirrors=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $codename" 'Component: main')
proxy=$(apt-config shell proxy Acquire::http::Proxy)
eval "$proxy"
if [[ -n ${proxy:-} ]]; then
    export http_proxy=$proxy
fi
debootstrap --variant=minbase "$codename" "$work/rootfs" "${mirrors%%$'\n'*}" >"$work/log" ||
    { tail -n 50 "$work/log" >&2; exit 1; }
rm -rf "$work"/rootfs/var/cache/apt "$work"/rootfs/var/lib/apt/lists/* "$work"/rootfs/usr/share/{doc,info,locale,man}
rm -f "$work"/rootfs/etc/{resolv.conf,hostname,apt/sources.list} "$work"/rootfs/var/log/*.log
tar -C "$work/rootfs" --numeric-owner --xattrs -cf - . |
    docker import --change "LABEL $image-hash=$hash" --change "LABEL $image=1" - "$image:base"
# What had this tag before is of no more use.
docker image prune --force --filter "label=$image"
