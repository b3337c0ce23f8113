# Makes an Arch-like base image of a Debian one; called by make-base.sh, which prepares the folder that it is built in.
ARG ROOTFS=proving-ground-archlike:rootfs

# --- The packages of the local repository, by the real makepkg
FROM ${ROOTFS} AS packages
LABEL proving-ground-archlike=packages
# makepkg refuses to work for root, and asks pacman what is installed, which makes an empty database the first time.
RUN useradd --uid 1000 --create-home --home-dir /build builder && pacman -T
COPY --chown=builder:builder . /build/
USER 1000
WORKDIR /build/repo
RUN for package in ../packages/*; do \
        PKGDEST=$PWD env -C "$package" makepkg --config ../../makepkg.conf --nodeps || exit 1; \
    done
RUN repo-add --quiet archlike.db.tar.gz ./*.pkg.tar.zst

# --- The image
FROM ${ROOTFS}
LABEL proving-ground-archlike=base
COPY pacman.conf /etc/pacman.conf
COPY --from=packages --chown=root:root /build/repo /var/lib/archlike/repo
RUN pacman -Sy --noconfirm base base-devel
COPY os-release/arch /usr/lib/os-release
ENV LANG=C.UTF-8
CMD ["/usr/bin/bash"]
