#!/usr/bin/env bash
# Builds the project's Dockerfile on the Arch-like base image and uses it as a user would: a copy of the repository is mounted
# at /workspace, since what root makes there is root's. No container has a network: the copy holds the crates as well.
# Needs what make-base.sh needs, and git and cargo. KEEP=1 keeps the copy.
set -euo pipefail
cd "$(dirname "$0")/../.."
image=proving-ground-archlike

step() {
    printf '\n--- %s (after %s s)\n' "$*" "$SECONDS"
    "$@"
}

step tests/archlike/make-base.sh

# --- A copy of the repository: its history, its files as they are now, and its crates ----------------------------------------
copy=$(mktemp -d)
if [[ -z ${KEEP:-} ]]; then
    trap 'rm -rf "$copy"' EXIT
fi
git clone --quiet . "$copy/workspace"
git ls-files -z --cached --others --exclude-standard --deduplicate | tar --null --ignore-failed-read -T - -cf - |
    tar -xf - -C "$copy/workspace"
cd "$copy/workspace"
mkdir -p .cargo
step cargo vendor --quiet --locked vendor
cat >.cargo/config.toml <<'END'
[source.crates-io]
replace-with = "vendored"
[source.vendored]
directory = "vendor"
[net]
offline = true
END
printf '/vendor\n/.cargo\n' >>.git/info/exclude

# --- The image ---------------------------------------------------------------------------------------------------------------
build=(docker build --force-rm --network none --build-arg "BASE_IMAGE=$image:base")
step "${build[@]}" --target machine --tag "$image:machine" .
run=(docker run --rm --network none --volume "$PWD:/workspace" --workdir /workspace)

# --- The harness in the container: cargo test, on the container's own /usr/bin -----------------------------------------------
# What the image lacks comes from the distribution's repository, as the stage `deps` will have it.
step docker run --name "$image-$$" --network none "$image:machine" pacman -S --noconfirm rust-coreutils
docker commit "$image-$$" "$image:with-deps"
docker rm "$image-$$"
step "${run[@]}" --env SUITES_DIR=tests/archlike/suites "$image:with-deps" cargo test --locked --test suites
step grep -q '"counts":{"pass":4,"fail":0,"running":0,"interrupted":0}' .proof/summary.json
step cat .proof/summary.json
# The repository's own suites pass there as well.
step "${run[@]}" "$image:machine" cargo test --locked --test suites
