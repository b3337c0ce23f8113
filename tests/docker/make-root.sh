#!/usr/bin/env bash
# Makes a folder that is the root of a minimal Debian of this machine's release, so that programs built here run there.
# Arguments: the folder; packages beside the least ones, separated by commas. Needs root, debootstrap, and Debian's apt.
set -euo pipefail
root=$1
codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)

# The mirror and the proxy are those of this machine's apt.
# shellcheck disable=SC2016 # apt puts a value there
mirrors=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $codename" 'Component: main')
proxy=$(apt-config shell proxy Acquire::http::Proxy)
eval "$proxy"
if [[ -n ${proxy:-} ]]; then
    export http_proxy=$proxy
fi
debootstrap --variant=minbase --include="$2" "$codename" "$root" "${mirrors%%$'\n'*}" >"$root.log" ||
    { tail -n 50 "$root.log" >&2; exit 1; }
# What such images do not have either, and what is only for the machine that made it.
rm -rf "$root"/var/cache/apt "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,info,locale,man}
rm -f "$root"/etc/{resolv.conf,hostname,apt/sources.list} "$root"/var/log/*.log
