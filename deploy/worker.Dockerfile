# A grading machine as a container. The binary is built before, into a folder that is the whole context, so that any builder will do:
#
#   cargo install --locked --path . --features worker --bin chickadee-runner --root deploy/image
#   docker build --file deploy/worker.Dockerfile --tag chickadee-runner deploy/image
#
# Tried with the engine's own builder (20.10), by `docker build` and with BuildKit; tests/docker/run.sh builds it so, and uses it.
# The binary needs a C library at least as new as the one that it was built with: build it on the same Debian.
# A base of one's own, such as a mirror's, is named with --build-arg.
ARG BASE_IMAGE=debian:bookworm-slim
# hadolint ignore=DL3006
FROM $BASE_IMAGE

# What the scripts of courses need. The worker itself needs none of it, not even certificates: it brings its own.
# Debian's updates within a release are what we want.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash make python3 python3-pytest procps \
    && rm -rf /var/lib/apt/lists/*

# Not root, whose scripts would have to be handed to somebody else, and who can write to /proc/sys where it is not masked.
# The folders belong to that user, so that fresh volumes do, too. What the worker keeps to itself lies in folders below them, which it
# makes: a mount's own root is often somebody else's, or open to others, and then refused.
RUN useradd --uid 1000 --create-home --shell /usr/sbin/nologin runner \
    && install --directory --owner=runner --group=runner --mode=0700 /var/lib/chickadee-runner /var/cache/chickadee-runner \
    && install --directory --owner=runner --group=runner --mode=0755 /run/chickadee-runner

COPY bin/chickadee-runner /usr/local/bin/chickadee-runner

USER 1000:1000
ENV LANG=C.UTF-8
WORKDIR /var/lib/chickadee-runner
# SIGTERM drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/chickadee-runner"]
CMD ["--sandbox", "--state-dir", "/var/lib/chickadee-runner/state", "--test-setup-cache-dir", "/var/cache/chickadee-runner/setups", "--status-file", "/run/chickadee-runner/status.json"]
