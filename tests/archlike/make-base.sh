#!/usr/bin/env bash
# Makes the Docker image `proving-ground-archlike:base`: Debian's packages in the shape of Arch, with the real pacman and a
# local repository. What exists is not made again.
# Needs docker, what ../docker/make-root.sh needs, and the Rust toolchain that is to be in the image.
set -euo pipefail
cd "$(dirname "$0")"
image=proving-ground-archlike

# --- Is it there already? A label holds the hash of all that an image is made of --------------------------------------------
rootfs_hash=$(cat /etc/os-release make-base.sh ../docker/make-root.sh | sha256sum | cut -c 1-16)
sources=$(find base.Dockerfile make-packages.sh makepkg.conf pacman.conf os-release packages -type f | sort)
# shellcheck disable=SC2086 # a list of words, none of which holds a blank
base_hash=$({ echo "$rootfs_hash"; rustc -vV; sha256sum $sources; } | sha256sum | cut -c 1-16)
label='{{ index .Config.Labels "proving-ground-archlike-hash" }}'
if [[ $(docker image inspect -f "$label" "$image:base" 2>/dev/null) == "$base_hash" ]]; then
    echo "$image:base is up to date ($base_hash)"
    exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# --- A root of Debian's packages ---------------------------------------------------------------------------------------------
if [[ $(docker image inspect -f "$label" "$image:rootfs" 2>/dev/null) != "$rootfs_hash" ]]; then
    packages=ca-certificates,fakeroot,file,gcc,git,libarchive-tools,libc6-dev,libcap2-bin,libselinux1,make,makepkg
    packages+=,pacman-package-manager,patch,procps,strace,sudo,zstd
    ../docker/make-root.sh "$work/rootfs" "$packages"
    echo "debootstrap was done after $SECONDS s"

    # One folder for all programs, as Arch has it. dpkg follows the links.
    mv -n "$work"/rootfs/usr/sbin/* "$work/rootfs/usr/bin/"
    rmdir "$work/rootfs/usr/sbin"
    ln -s bin "$work/rootfs/usr/sbin"
    ln -sfn usr/bin "$work/rootfs/sbin"

    tar -C "$work/rootfs" --numeric-owner --xattrs -cf - . |
        docker import --change "LABEL proving-ground-archlike-hash=$rootfs_hash" --change 'LABEL proving-ground-archlike=1' \
            - "$image:rootfs"
    rm -rf "$work/rootfs"
fi

# --- The packages of the local repository ------------------------------------------------------------------------------------
mkdir -p "$work"/build/{debs,repo,toolchain/lib/rustlib}
cp -a make-packages.sh makepkg.conf packages "$work/build/"
sysroot=$(rustc --print sysroot)
host=$(rustc -vV | sed -n 's/^host: //p')
cp -a "$sysroot/bin" "$work/build/toolchain/"
cp -a "$sysroot"/lib/*.so* "$work/build/toolchain/lib/"
cp -a "$sysroot/lib/rustlib/$host" "$work/build/toolchain/lib/rustlib/"
cd "$work/build/debs"
apt-get -o APT::Sandbox::User=root download locales rust-coreutils
mv locales_*.deb locales.deb
mv rust-coreutils_*.deb rust-coreutils.deb
cd "$OLDPWD"
docker run --rm --network none --volume "$work/build:/build" "$image:rootfs" bash /build/make-packages.sh
echo "the packages were there after $SECONDS s"

# --- The image ---------------------------------------------------------------------------------------------------------------
mkdir "$work/context"
cp -a pacman.conf os-release "$work/context/"
mv "$work/build/repo" "$work/context/"
docker build --force-rm --network none --label "proving-ground-archlike-hash=$base_hash" --file base.Dockerfile \
    --tag "$image:base" "$work/context"
# What had these tags before is of no more use.
docker image prune --force --filter label=proving-ground-archlike
