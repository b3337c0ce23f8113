# A machine on which the suites of the repository mounted at /workspace may do what they want:
#
#   docker build --tag container-runner .
#   docker run --rm --volume "$PWD:/workspace" container-runner               # all stages
#   docker run --rm --volume "$PWD:/workspace" container-runner run-suites    # one of them
#
# Names, locales and mirrors are settled here: container-runner uses what it finds and repairs nothing.
ARG BASE_IMAGE=archlinux:base-devel

# --- The machine: what the product's build and its suites need ---------------------------------------------------------------
FROM ${BASE_IMAGE} AS machine
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Arch's images unpack the sources of English locales only; the second pacman brings those of German.
# Everything is upgraded, because Arch knows no partial upgrades. The databases stay: the stage `deps` never refreshes them.
RUN printf '\n[options]\nNoExtract = !usr/share/i18n/locales/de_DE\n' >>/etc/pacman.conf \
    && pacman -Syu --noconfirm --needed git rust sudo \
    && pacman -S --noconfirm glibc \
    && rm -rf /var/cache/pacman/pkg/*
# A locale that is missing makes no program fail, so it is asked for here.
RUN sed -i -E 's/^#((de_DE|en_US)\.UTF-8 UTF-8)/\1/' /etc/locale.gen \
    && locale-gen \
    && [[ $(LC_ALL=de_DE.UTF-8 locale decimal_point) == , && $(LC_ALL=en_US.UTF-8 locale charmap) == UTF-8 ]]
ENV LANG=en_US.UTF-8
# The mounted repository belongs to whoever mounted it, and git would rather not look into it.
RUN git config --system --add safe.directory /workspace

# --- The runner --------------------------------------------------------------------------------------------------------------
FROM machine AS runner
WORKDIR /build
COPY . .
RUN cargo build --locked --release --bin container-runner

# --- Both --------------------------------------------------------------------------------------------------------------------
FROM machine
COPY --from=runner /build/target/release/container-runner /usr/local/bin/
WORKDIR /workspace
ENTRYPOINT ["container-runner"]
CMD ["all"]
