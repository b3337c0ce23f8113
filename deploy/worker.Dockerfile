# A grading machine as a container. The binary is built before, and its folder is a build context of its own, because .dockerignore
# keeps `target` out of the first one:
#
#   cargo build --locked --release --features worker --bin chickadee-runner
#   docker build --file deploy/worker.Dockerfile --build-context binary=target/release --tag chickadee-runner .
#
# The binary needs a C library at least as new as the one that it was built with: build it on the same Debian.
FROM debian:bookworm-slim

# What the scripts of courses need. The worker itself needs none of it, not even certificates: it brings its own.
# Debian's updates within a release are what we want.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bash make python3 python3-pytest procps \
    && rm -rf /var/lib/apt/lists/*

# Not root, whose scripts would have to be handed to somebody else, and who can write to /proc/sys where it is not masked.
# The folders belong to that user, so that fresh volumes do, too.
RUN useradd --uid 1000 --create-home --shell /usr/sbin/nologin runner \
    && install --directory --owner=runner --group=runner --mode=0700 /var/lib/chickadee-runner /var/cache/chickadee-runner \
    && install --directory --owner=runner --group=runner --mode=0755 /run/chickadee-runner

# The context of that name, see above.
# hadolint ignore=DL3022
COPY --from=binary chickadee-runner /usr/local/bin/chickadee-runner

USER 1000:1000
ENV LANG=C.UTF-8
WORKDIR /var/lib/chickadee-runner
# SIGTERM drains.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/chickadee-runner"]
CMD ["--sandbox", "--state-dir", "/var/lib/chickadee-runner", "--test-setup-cache-dir", "/var/cache/chickadee-runner", "--status-file", "/run/chickadee-runner/status.json"]
