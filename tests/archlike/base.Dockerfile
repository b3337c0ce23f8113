# Makes an Arch-like base image of a Debian root; called by make-base.sh, which prepares the folder that it is built in.
ARG ROOTFS=proving-ground-archlike:rootfs
FROM ${ROOTFS}
COPY pacman.conf /etc/pacman.conf
COPY repo /var/lib/archlike/repo
RUN pacman -Sy --noconfirm base base-devel
COPY os-release/arch /usr/lib/os-release
ENV LANG=C.UTF-8
CMD ["/usr/bin/bash"]
